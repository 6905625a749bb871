"""Cross-encoders of sentence-transformers: score a query and a passage together.

The model's own modules and activation function compute the scores, as in `CrossEncoder.predict`.
This module decides the input: windows of pairs are tokenized at once, sorted by token count and
split into batches under a token budget, end to end where the model allows it. They run in the
precision that is fast on the device, on a CPU with packed weights; the head stays in float32. The
next window is tokenized, and on a GPU launched, before a result is waited for.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

# At the top: this module is imported when a model is loaded.
import numpy as np
import torch
from torch import nn

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.backends.packed_linear import (
    call_unpacking,
    pack_linears_if_faster,
)
from msmarco_qdrant.encoding.backends.torch_device import (
    default_tokens_per_batch,
    resolve_dtype,
    to_device,
)
from msmarco_qdrant.encoding.backends.varlen_attention import (
    has_varlen_attention,
    position_offset,
    supports_varlen_pairs,
    use_varlen_pairs,
    varlen_features,
)
from msmarco_qdrant.encoding.batching import split_by_tokens
from msmarco_qdrant.encoding.forks import require_own_threads
from msmarco_qdrant.encoding.pair_tokenizers import TokenizedPairs, build_pair_tokenizer
from msmarco_qdrant.encoding.pretrained import load_cross_encoder
from msmarco_qdrant.errors import EncodingError, UsageError
from msmarco_qdrant.runtime.pipeline import Pipeline

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder

_log = logging.getLogger(__name__)

# Pairs tokenized and sorted together; with 512 tokens each they need about 200 MB.
_WINDOW = 4096

_Pairs: TypeAlias = Sequence[tuple[str, str]]


class CrossEncoderReranker:
    """A cross-encoder of sentence-transformers, ready to score.

    Thread-safe: one thread at a time uses the device.

    Args:
        location: A directory or a hub id.
        hint: The model's name; None for the location.
        device: A torch device such as "cpu" or "cuda:1"; None for the best one.
        precision: "float32", "bfloat16" or "float16"; None for the fast one of the device.
        tokens_per_batch: Maximum tokens of a batch, padding included; None for the device's
            default.

    Attributes:
        model: The model's name.
        location: The directory or hub id from which it was loaded.
        device: The torch device, such as "cpu" or "cuda:0".
        precision: Precision of the forward pass: "bfloat16", "float16" or "float32".

    Raises:
        ModelNotFoundError: If the model cannot be loaded, or does not return one score per pair.
        UsageError: For a precision that torch does not compute in.
    """

    def __init__(
        self,
        location: str,
        *,
        hint: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        tokens_per_batch: int | None = None,
    ) -> None:
        self.location = location
        self.model = hint or location
        self._lock = threading.Lock()
        self._float32_forward: _Forward | None = None
        model = load_cross_encoder(location, device)
        self._activation = model.activation_fn
        self._tokenize = build_pair_tokenizer(model)
        self._forward = _Forward(model, precision, tokens_per_batch)
        self.device = str(self._forward.device)
        self.precision = str(self._forward.dtype).removeprefix("torch.")
        _log.info("%s runs by torch on %s in %s", self.model, self.device, self.precision)

    def __repr__(self) -> str:
        return f"CrossEncoderReranker({self.model!r}; {self.device} in {self.precision})"

    @property
    def applies_sigmoid(self) -> bool:
        """True if the model's own activation function is the logistic one: scores are 0 to 1."""
        return isinstance(self._activation, torch.nn.Sigmoid)

    def warm_up(self) -> None:
        """Score one pair, so that one-time costs are paid."""
        self.scores([("how big is london", "London is a city on the Thames.")])

    def scores(self, pairs: _Pairs) -> NDArray[np.float32]:
        """Score pairs of a query and a passage; see `Reranker.scores`.

        Raises:
            EncodingError: If the forward pass fails, or a score is not finite in float32 either;
                or in a forked child.
            UsageError: For a string or a single pair instead of a list of pairs.
        """
        _check_pairs(pairs)
        require_own_threads()
        if len(pairs) > _WINDOW:
            return next(self.score_batches([pairs]))
        if not pairs:
            return np.empty(0, np.float32)
        return self._finish(self._launch(_Window(pairs, self._tokenize(pairs), is_last=True)))

    def score_batches(self, batches: Iterable[_Pairs]) -> Iterator[NDArray[np.float32]]:
        """Score many batches of pairs, without pauses of the device between them.

        Pairs that follow are read and tokenized in a thread while the device is busy.

        Args:
            batches: Lists of pairs of any length; one thread reads them ahead.

        Yields:
            The scores of each batch, in order; see `scores`.
        """
        require_own_threads()
        with Pipeline() as pipeline:
            windows = pipeline.run(self._windows(batches), prefetch=2, name="tokenize")
            scored: list[NDArray[np.float32]] = []
            for window, scores in self._score_windows(windows):
                scored.append(scores)
                if window.is_last:
                    yield np.concatenate(scored)
                    scored = []

    def _windows(self, batches: Iterable[_Pairs]) -> Iterator[_Window]:
        """Tokenize the pairs of each batch, a window at a time."""
        for pairs in batches:
            _check_pairs(pairs)
            starts = range(0, max(len(pairs), 1), _WINDOW)
            for start in starts:
                part = pairs[start : start + _WINDOW]
                yield _Window(part, self._tokenize(part), is_last=start == starts[-1])

    def _score_windows(
        self, windows: Iterable[_Window]
    ) -> Iterator[tuple[_Window, NDArray[np.float32]]]:
        """Score windows; on a GPU, one is launched before the result of the last is waited for."""
        in_flight: deque[_LaunchedWindow] = deque()
        for window in windows:
            in_flight.append(self._launch(window))
            if len(in_flight) == self._forward.max_in_flight:
                yield in_flight[0].window, self._finish(in_flight.popleft())
        for launched in in_flight:
            yield launched.window, self._finish(launched)

    def _launch(self, window: _Window) -> _LaunchedWindow:
        with self._lock:
            return _LaunchedWindow(window, self._forward.launch(window.tokenized))

    def _finish(self, launched: _LaunchedWindow) -> NDArray[np.float32]:
        """Wait for a window's scores; those that are not finite are computed in float32."""
        pairs, tokenized = launched.window.pairs, launched.window.tokenized
        logits = launched.passed.logits()
        bad = np.flatnonzero(~np.isfinite(logits))
        if bad.size and self.precision != "float32":
            logits[bad] = self._retry_in_float32(tokenized.take(bad))
        scores = self._apply_activation(logits)
        bad = np.flatnonzero(~(np.isfinite(logits) & np.isfinite(scores)))
        if bad.size:
            query, passage = pairs[int(bad[0])]
            raise EncodingError(
                f"{self.model} returns no finite score for the query {query[:200]!r} and the "
                f"passage {passage[:200]!r}"
            )
        return scores

    def _apply_activation(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the model's activation function, in float32, to `(n, 1)` as the library does."""
        if self._activation is None:
            return logits
        with torch.inference_mode():
            activated: torch.Tensor = self._activation(torch.from_numpy(logits)[:, None])
        scores: NDArray[np.float32] = activated.reshape(-1).numpy()
        return scores

    def _retry_in_float32(self, pairs: TokenizedPairs) -> NDArray[np.float32]:
        with self._lock:
            if self._float32_forward is None:
                _log.warning(
                    "%s returned a score that is not finite in %s; retrying such pairs in float32",
                    self.model,
                    self.precision,
                )
                model = load_cross_encoder(self.location, self.device)
                self._float32_forward = _Forward(model, "float32", self._forward.tokens_per_batch)
            return self._float32_forward.launch(pairs).logits()


def _check_pairs(pairs: _Pairs) -> None:
    if isinstance(pairs, str) or any(isinstance(pair, str) for pair in pairs):
        raise UsageError(
            "pairs must be a list of pairs (query, passage), got a string or a single pair"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Pairs that are tokenized and sorted together.

    Attributes:
        is_last: True for the last window of its batch.
    """

    pairs: _Pairs
    tokenized: TokenizedPairs
    is_last: bool


@dataclass(frozen=True, slots=True, eq=False)
class _LaunchedWindow:
    """A window whose scores a GPU may still be computing."""

    window: _Window
    passed: _Passed


@dataclass(frozen=True, slots=True, eq=False)
class _Passed:
    """The output of a forward pass, on its way to the host.

    Attributes:
        pairs: The pairs.
        host: float32, in the order of `positions`.
        positions: The place of each score.
        copied: The end of the copy on a GPU; None on other devices.
    """

    pairs: TokenizedPairs
    host: torch.Tensor
    positions: NDArray[np.int64]
    copied: torch.cuda.Event | None

    def logits(self) -> NDArray[np.float32]:
        """Wait for the model's output: float32 `(len(pairs),)`.

        Raises:
            EncodingError: If the forward pass failed.
        """
        if self.copied is not None:
            try:
                self.copied.synchronize()
            except RuntimeError as exc:
                raise _failed(self.pairs, "the GPU", exc) from exc
        logits = np.empty(len(self.pairs), np.float32)
        logits[self.positions] = self.host.numpy()
        return logits


class _Forward:
    """A model on its device in one precision. Not thread-safe.

    Args:
        model: The model; it is changed in place.
        precision: Its precision; None for the fast one of the device.
        tokens_per_batch: Maximum tokens of a batch; None for the device's default.
    """

    def __init__(
        self, model: CrossEncoder, precision: str | None, tokens_per_batch: int | None
    ) -> None:
        self.device = model.device
        self.dtype = resolve_dtype(precision, self.device)
        self.tokens_per_batch = tokens_per_batch or default_tokens_per_batch(self.device)
        # A GPU works while the next window is prepared; a CPU runs one at a time.
        self.max_in_flight = 2 if self.device.type == "cuda" else 1
        self._model = model
        self._pad_id = int(model.tokenizer.pad_token_id or 0)
        trunk = _find_trunk(model).to(self.dtype)
        if self.dtype != torch.float32:
            _convert_inputs_to_float32({*model.modules()} - {*trunk.modules()})
        self.needs_padding = not (
            has_varlen_attention(self.device, self.dtype) and supports_varlen_pairs(model)
        )
        if not self.needs_padding:
            self._offset = position_offset(model)
            use_varlen_pairs(model)
        pack_linears_if_faster(trunk, self.device, self.dtype)

    def launch(self, pairs: TokenizedPairs) -> _Passed:
        """Start a forward pass over a window.

        Raises:
            EncodingError: If it fails, for example without enough memory.
        """
        batches = split_by_tokens(
            pairs.tokens.lengths, self.tokens_per_batch, padded=self.needs_padding
        )
        positions = list(batches)
        try:
            with torch.inference_mode():
                none = torch.empty(0, device=self.device)
                found = [none, *(self._score(pairs.take(batch)) for batch in positions)]
                host, copied = self._copy_to_host(torch.cat(found))
        except Exception as exc:  # mostly out of memory, else an error of the model's code
            raise _failed(pairs, str(self.device), exc) from exc
        order = np.concatenate([np.empty(0, np.int64), *positions])
        return _Passed(pairs, host, order, copied)

    def _copy_to_host(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        if self.device.type != "cuda":
            return scores.cpu(), None
        host = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
        host.copy_(scores, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(self.device))
        return host, copied

    def _score(self, batch: TokenizedPairs) -> torch.Tensor:
        """Return float32 `(len(batch),)`, which a GPU may still be computing."""
        return call_unpacking(self._model, partial(self._run, batch)).float().reshape(-1)

    def _run(self, batch: TokenizedPairs) -> torch.Tensor:
        features = self._padded(batch) if self.needs_padding else self._varlen(batch)
        scores: torch.Tensor = self._model(features)["scores"]
        return scores

    def _varlen(self, batch: TokenizedPairs) -> dict[str, Any]:
        return varlen_features(batch.tokens, self.device, self._offset, batch.segments)

    def _padded(self, batch: TokenizedPairs) -> dict[str, Any]:
        ids, mask = batch.tokens.padded(self._pad_id)
        features = {"input_ids": ids, "attention_mask": mask}
        if batch.segments is not None:
            features["token_type_ids"], _ = batch.segments.padded(0)
        return {
            name: to_device(torch.from_numpy(rows), self.device) for name, rows in features.items()
        }


def _failed(pairs: TokenizedPairs, device: str, exc: Exception) -> EncodingError:
    return EncodingError(
        f"the forward pass over {len(pairs)} pairs of {len(pairs.tokens.ids):,} tokens failed on "
        f"{device}: {first_line(exc)}"
    )


# ---- the head --------------------------------------------------------------------------------


def _find_trunk(model: CrossEncoder) -> nn.Module:
    """Return everything except the head, which is nearly all of the time.

    The head stays in float32: bfloat16 has steps of 0.0625 between 8 and 16, so the scores of the
    best passages would be equal.
    """
    for module in model.modules():
        trunk = getattr(module, "base_model", None)  # an attribute of every model of transformers
        if isinstance(trunk, nn.Module):
            return trunk
    return model


def _convert_inputs_to_float32(modules: Iterable[nn.Module]) -> None:
    """Convert the inputs of layers with float32 weights; an input may be one token of many."""
    for module in modules:
        weights = [*module.parameters(recurse=False)]
        if weights and all(weight.dtype == torch.float32 for weight in weights):
            module.register_forward_pre_hook(_to_float32)


def _to_float32(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(values.float() if values.is_floating_point() else values for values in given)
