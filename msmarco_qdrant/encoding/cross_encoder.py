"""Cross-encoders of sentence-transformers: a query and a passage together, to one score.

What is computed is the model's own modules and its own activation function, as
`CrossEncoder.predict` does. What is ours is what goes in and where: pairs are tokenized at once,
sorted by token count and cut into batches under a token budget; they run in the precision that the
device is fast in, on a CPU with packed weights, but for the head, which stays in float32; and
nothing waits for a GPU until every batch is under way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

# At the top: nothing imports this module before a model is loaded.
import torch
from torch import nn

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.encoding.backends.packed_linear import pack_linears_if_faster
from msmarco_qdrant.encoding.backends.torch_device import (
    dtype_of,
    sent,
    tokens_per_batch_of,
)
from msmarco_qdrant.encoding.batching import token_budget_batches
from msmarco_qdrant.encoding.pair_tokenizers import TokenizedPairs, pair_tokenizer_of
from msmarco_qdrant.encoding.pretrained import load_cross_encoder
from msmarco_qdrant.errors import EncodingError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder

_log = logging.getLogger(__name__)

# Pairs that are tokenized and sorted together: at 512 tokens each, some 200 MB while that happens.
_WINDOW = 4096


class CrossEncoderReranker:
    """A cross-encoder of sentence-transformers, ready to score.

    Thread-safe: one thread at a time uses the device.

    Args:
        location: A directory or a hub id.
        hint: The name that people know it by; None for the location.
        device: A torch device such as "cpu" or "cuda:1"; None for the best one.
        precision: "float32", "bfloat16" or "float16"; None for what the device is fast in.
        tokens_per_batch: Most tokens of a batch, padding included; None for the device's default.

    Raises:
        ModelNotFoundError: If the model cannot be loaded, or gives no single score a pair.
        UsageError: For a precision that torch has not.
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
        self._location = location
        self._name = hint or location
        self._lock = threading.Lock()
        self._exact: _Forward | None = None
        model = load_cross_encoder(location, device)
        self._activation = model.activation_fn
        self._tokenize = pair_tokenizer_of(model)
        self._forward = _Forward(model, precision, tokens_per_batch)
        _log.info("%s runs by torch on %s in %s", self._name, self.device, self.precision)

    @property
    def model(self) -> str:
        """The name that people know it by."""
        return self._name

    @property
    def location(self) -> str:
        """The directory or hub id it was loaded from."""
        return self._location

    @property
    def device(self) -> str:
        """The torch device, such as "cpu" or "cuda:0"."""
        return str(self._forward.device)

    @property
    def precision(self) -> str:
        """What the forward pass computes in: "bfloat16", "float16" or "float32"."""
        return str(self._forward.dtype).removeprefix("torch.")

    def warm_up(self) -> None:
        """Score one pair, so that what happens once has happened."""
        self.scores([("how big is london", "London is a city on the Thames.")])

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Score pairs of a query and a passage; see `Reranker.scores`.

        Raises:
            EncodingError: If the forward pass fails, or a score is not finite in float32 either.
            UsageError: For one string, or one pair, instead of a list of pairs.
        """
        import numpy as np

        if isinstance(pairs, str) or any(isinstance(pair, str) for pair in pairs):
            raise UsageError(
                "scores takes a list of pairs, each of a query and a passage, not one string or "
                "one pair"
            )
        windows = [self._scores(window) for window in in_batches(pairs, _WINDOW)]
        return np.concatenate(windows) if windows else np.empty(0, np.float32)

    def _scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        import numpy as np

        tokenized = self._tokenize(pairs)
        with self._lock:
            logits = self._forward.logits(tokenized)
        bad = np.flatnonzero(~np.isfinite(logits))
        if bad.size and self.precision != "float32":
            logits[bad] = self._again_in_float32(tokenized.take(bad))
        scores = self._activated(logits)
        bad = np.flatnonzero(~(np.isfinite(logits) & np.isfinite(scores)))
        if bad.size:
            query, passage = pairs[int(bad[0])]
            raise EncodingError(
                f"{self._name} has no finite score for the query {query[:200]!r} and the "
                f"passage {passage[:200]!r}"
            )
        return scores

    def _activated(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model's own activation function, in float32, of `(n, 1)` as the library calls it."""
        if self._activation is None:
            return logits
        with torch.inference_mode():
            activated: torch.Tensor = self._activation(torch.from_numpy(logits)[:, None])
        scores: NDArray[np.float32] = activated.reshape(-1).numpy()
        return scores

    def _again_in_float32(self, pairs: TokenizedPairs) -> NDArray[np.float32]:
        with self._lock:
            if self._exact is None:
                _log.warning(
                    "%s gave a score that is not finite in %s; trying such pairs in float32",
                    self._name,
                    self.precision,
                )
                model = load_cross_encoder(self._location, self.device)
                self._exact = _Forward(model, "float32", self._forward.tokens_per_batch)
            return self._exact.logits(pairs)


class _Forward:
    """A model on its device in one precision. One thread at a time uses it.

    Args:
        model: The model; it is changed in place.
        precision: What to compute in; None for what the device is fast in.
        tokens_per_batch: Most tokens of a batch; None for the device's default.
    """

    def __init__(
        self, model: CrossEncoder, precision: str | None, tokens_per_batch: int | None
    ) -> None:
        self.device = model.device
        self.dtype = dtype_of(precision, self.device)
        self.tokens_per_batch = tokens_per_batch or tokens_per_batch_of(self.device)
        self._model = model
        self._pad_id = int(model.tokenizer.pad_token_id or 0)
        trunk = _trunk(model).to(self.dtype)
        if self.dtype != torch.float32:
            _hand_float32({*model.modules()} - {*trunk.modules()})
        pack_linears_if_faster(trunk, self.device, self.dtype)

    def logits(self, pairs: TokenizedPairs) -> NDArray[np.float32]:
        """What the model's last layer gives: float32 `(len(pairs),)`.

        Raises:
            EncodingError: If the forward pass fails, as when memory runs out.
        """
        import numpy as np

        batches = token_budget_batches(pairs.tokens.lengths, self.tokens_per_batch, padded=True)
        positions = list(batches)
        try:
            with torch.inference_mode():
                found = [self._launched(pairs.take(batch)) for batch in positions]
                together = torch.cat(found).cpu().numpy()  # here a GPU is waited for
        except RuntimeError as exc:  # out of memory, above all
            raise EncodingError(
                f"the forward pass over {len(pairs)} pairs of {len(pairs.tokens.ids):,} tokens "
                f"failed on {self.device}: {exc}"
            ) from exc
        logits = np.empty(len(pairs), np.float32)
        logits[np.concatenate(positions)] = together
        return logits

    def _launched(self, batch: TokenizedPairs) -> torch.Tensor:
        """float32 `(len(batch),)`, which a GPU may still be computing."""
        ids, mask = batch.tokens.padded(self._pad_id)
        features = {"input_ids": ids, "attention_mask": mask}
        if batch.segments is not None:
            features["token_type_ids"], _ = batch.segments.padded(0)
        output = self._model(
            {name: sent(torch.from_numpy(rows), self.device) for name, rows in features.items()}
        )
        scores: torch.Tensor = output["scores"]
        return scores.float().reshape(-1)


# ---- the head --------------------------------------------------------------------------------


def _trunk(model: CrossEncoder) -> nn.Module:
    """All but the head: nearly all of the time, and what is fast in lower precision.

    Of the head's output, bfloat16 has steps of 0.0625 between 8 and 16, in which the best passages
    would tie.
    """
    for module in model.modules():
        trunk = getattr(module, "base_model", None)  # as every model of transformers says it
        if isinstance(trunk, nn.Module):
            return trunk
    return model


def _hand_float32(modules: Iterable[nn.Module]) -> None:
    """Convert what layers with weights in float32 are handed, which may be one token of many."""
    for module in modules:
        weights = [*module.parameters(recurse=False)]
        if weights and all(weight.dtype == torch.float32 for weight in weights):
            module.register_forward_pre_hook(_in_float32)


def _in_float32(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(values.float() if values.is_floating_point() else values for values in given)
