"""The fastest precision of a model on this machine's processor, measured once.

Instruction sets do not decide it: one processor multiplies bfloat16 four times as fast as float32,
another with instructions for it is slower. The measurement takes about a second at first use, and
its result is remembered (`measured`). A compact model is measured as a whole.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

# At the top: this module is imported when a model is loaded.
import torch

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.backends import packed_linear, processor
from msmarco_qdrant.encoding.backends.fused import FusedForward
from msmarco_qdrant.encoding.backends.measured import Choice, measure_rates, recall_choice
from msmarco_qdrant.encoding.backends.threads import single_threads
from msmarco_qdrant.encoding.compact import CompactModel
from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_TOKENS = (96, 80, 64, 48, 112, 32, 72, 8)
# Lowest accepted cosine to float32, as documented, of texts of random tokens. bfloat16's is 0.9999
# with all-MiniLM-L6-v2.
_MIN_COSINE = 0.999


def supported_precisions() -> list[str]:
    """Return the precisions that this processor may compute fast, float32 first."""
    is_fast = processor.detect().is_fast_in_bfloat16 and packed_linear.packs(torch.bfloat16)
    return ["float32", "bfloat16"] if is_fast else ["float32"]


def choose_precision(model: CompactModel, fingerprint: str, name: str) -> str:
    """Return the fastest precision, by a measurement if this machine has not made it before.

    Args:
        model: The weights.
        fingerprint: Identifies them.
        name: The model's name, for the log.
    """
    precisions = supported_precisions()
    if len(precisions) == 1:
        return precisions[0]
    found = recall_choice(fingerprint, precisions, lambda: measure(model, precisions))
    _log.info("%s: the fastest precision on this processor is %s", name, found)
    return found.precision


def measure(model: CompactModel, precisions: Sequence[str]) -> Choice:
    """Compare precisions on one core, in alternating rounds.

    A precision that fails, or whose vectors are not those of float32, the first one, is left out.
    """
    texts = _make_texts(model)
    return Choice.of(time_passes(_make_passes(model, precisions, texts), texts))


def is_precise(model: CompactModel, precision: str) -> bool:
    """True if a precision runs on this processor and its vectors are those of float32."""
    return precision in _make_passes(model, ["float32", precision], _make_texts(model))


def _make_passes(
    model: CompactModel, precisions: Sequence[str], texts: Tokenized
) -> dict[str, FusedForward]:
    """Return the passes that run and are near the first one, by their names."""
    passes: dict[str, FusedForward] = {}
    with single_threads(1, "measure") as pool:
        expected: NDArray[np.float32] | None = None
        for precision in precisions:
            try:
                forward = FusedForward(model, precision)
                vectors = pool.submit(forward, texts).result()
            # Of an operator that this processor or build of torch lacks.
            except (RuntimeError, AttributeError) as exc:
                _log.info("%s does not run on this processor: %s", precision, first_line(exc))
                continue
            if expected is None:
                expected = vectors
            elif cosines(expected, vectors).min() < _MIN_COSINE:
                _log.info("%s is not precise enough for this model", precision)
                continue
            passes[precision] = forward
    return passes


def time_passes(
    passes: Mapping[str, FusedForward],
    texts: Tokenized,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return tokens per second of each pass, by its name, in alternating rounds on one core."""
    calls = {name: partial(forward, texts) for name, forward in passes.items()}
    return measure_rates(calls, len(texts.ids), clock)


def _make_texts(model: CompactModel) -> Tokenized:
    """Return texts of random tokens, in the lengths of passages."""
    import numpy as np

    longest = len(model.positions) - (model.pad_id is not None)
    lengths = [min(length, longest) for length in _TOKENS]
    words = len(model.words)
    ids = np.random.default_rng(0).integers(words // 2, words, sum(lengths), np.int32)
    return Tokenized.from_lengths(ids, lengths)


def cosines(expected: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows, float64 `(n,)`; NaN counts as 0."""
    import numpy as np

    left, right = expected.astype(np.float64), found.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    values: NDArray[np.float64] = np.nan_to_num((left * right).sum(axis=1) / norms)
    return values
