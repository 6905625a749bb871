"""The fastest precision of a compact model on this machine's processor, measured once.

Instruction sets do not decide it: one processor multiplies bfloat16 four times as fast as float32,
another with instructions for it is slower. The measurement takes about a second at first use. Its
result is a file in the user's cache, named by a digest of the model, the machine and the code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant import __version__
from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.backends import packed_linear, processor
from msmarco_qdrant.encoding.backends.cache import mark_used, model_cache, prune
from msmarco_qdrant.encoding.backends.fused import FORMS, FusedForward, compute_alone
from msmarco_qdrant.encoding.compact import CompactModel
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.runtime.atomic_file import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_KEPT_FILES = 64
_CODE = ("choice.py", "fused.py", "fused_layers.py")
_TOKENS = (96, 80, 64, 48, 112, 32, 72, 8)
# Rounds end after so many seconds.
_SECONDS = 1.0
_MIN_ROUNDS, _MAX_ROUNDS = 2, 8
# Lowest accepted cosine to float32, as documented, of texts of random tokens. bfloat16's is 0.9999
# with all-MiniLM-L6-v2.
_MIN_COSINE = 0.999


@dataclass(frozen=True, slots=True)
class Choice:
    """A measurement on one core.

    Attributes:
        precision: The fastest precision.
        tokens_per_second: Of each precision that was measured, by its name.
    """

    precision: str
    tokens_per_second: Mapping[str, float]

    def __str__(self) -> str:
        rates = [f"{name} {rate:,.0f}" for name, rate in self.tokens_per_second.items()]
        return f"{self.precision} (tokens per second and core: {', '.join(rates)})"


def supported_precisions() -> list[str]:
    """Return the precisions that this processor may compute fast, float32 first."""
    found = processor.detect()
    packs = found.is_fast_in_bfloat16 and found.packs_bfloat16 and packed_linear.has_operators()
    return ["float32", "bfloat16"] if packs else ["float32"]


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
    path = model_cache("choices") / f"{_digest(fingerprint)}.json"
    found = _read(path)
    if found is None or found.precision not in precisions:
        found = measure(model, precisions)
        _save(path, found)
    mark_used(path)
    _log.info("%s: the fastest precision on this processor is %s", name, found)
    return found.precision


def measure(model: CompactModel, precisions: Sequence[str]) -> Choice:
    """Compare precisions on one core, in alternating rounds.

    A precision that fails, or whose vectors are not those of float32, the first one, is left out.
    """
    texts = _make_texts(model)
    rates = time_passes(_make_passes(model, precisions, texts), texts)
    return Choice(max(rates, key=rates.__getitem__), rates)


def is_precise(model: CompactModel, precision: str) -> bool:
    """True if a precision runs on this processor and its vectors are those of float32."""
    return precision in _make_passes(model, ["float32", precision], _make_texts(model))


def _make_passes(
    model: CompactModel, precisions: Sequence[str], texts: Tokenized
) -> dict[str, FusedForward]:
    """Return the passes that run and are near the first one, by their names."""
    passes: dict[str, FusedForward] = {}
    with ThreadPoolExecutor(1, initializer=compute_alone) as pool:
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
    with ThreadPoolExecutor(1, initializer=compute_alone) as pool:
        least = pool.submit(_least_seconds, passes, texts, clock).result()
    return {name: len(texts.ids) / seconds for name, seconds in least.items()}


def _least_seconds(
    passes: Mapping[str, FusedForward], texts: Tokenized, clock: Callable[[], float]
) -> dict[str, float]:
    """Return the least seconds of each pass: other work on the machine only adds to them."""
    least = dict.fromkeys(passes, float("inf"))
    end = clock() + _SECONDS
    for number in range(_MAX_ROUNDS):
        if number >= _MIN_ROUNDS and clock() > end:
            break
        for name, forward in passes.items():
            started = clock()
            forward(texts)
            least[name] = min(least[name], clock() - started)
    return least


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


# ---- the file --------------------------------------------------------------------------------


def _digest(fingerprint: str) -> str:
    """Return the name of a file: of the model, the processor, its cores, and the code."""
    import torch

    here, found = Path(__file__).parent, processor.detect()
    parts = [
        *(fingerprint, __version__, torch.__version__, platform.platform()),
        *(found.architecture, found.name, *sorted(found.features)),
        str(processor.usable_cores()),
        *(hashlib.sha256((here / name).read_bytes()).hexdigest() for name in _CODE),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _read(path: Path) -> Choice | None:
    """Return the choice in a file; None without a whole one."""
    try:
        found = json.loads(path.read_text("utf-8"))
        rates = {str(name): float(rate) for name, rate in found["tokens_per_second"].items()}
        precision = found["precision"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return Choice(precision, rates) if precision in rates and precision in FORMS else None


def _save(path: Path, choice: Choice) -> None:
    """Write a choice; if that fails, the next start measures again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(json.dumps(asdict(choice)).encode())
        prune(path.parent, "*.json", _KEPT_FILES)
    except (OSError, OutputError) as exc:
        _log.info("cannot write %s, so the next start measures again: %s", path, exc)
