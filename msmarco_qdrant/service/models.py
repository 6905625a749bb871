"""The models that a sidecar runs, each loaded once for all of its parts."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from typing import Protocol

from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.options import ALL_GPUS, EncoderOptions, devices_of
from msmarco_qdrant.records import EncoderCard
from msmarco_qdrant.service.options import SidecarOptions

_TOKENS_ON_CPU = 1024


class ModelSource(Protocol):
    """What loads models."""

    def new(self) -> Encoder:
        """The encoder of a new collection."""

    def of(self, card: EncoderCard) -> Encoder:
        """The encoder of a collection whose metadata hold that card."""

    def reranker(self) -> Reranker | None:
        """What scores the best again, if anything does."""


class NamedModels:
    """Loads models by their names.

    Args:
        options: Which, where, and how they run.
    """

    def __init__(self, options: SidecarOptions) -> None:
        self._options = options

    def new(self) -> Encoder:
        """The encoder of a new collection."""
        from msmarco_qdrant.encoding import load_encoder

        return load_encoder(self._options.model, **asdict(self._encoder_options()))

    def of(self, card: EncoderCard) -> Encoder:
        """The encoder of a collection whose metadata hold that card."""
        from msmarco_qdrant.encoding.matching import encoder_of

        return encoder_of(self._options.collection, card, options=self._encoder_options())

    def reranker(self) -> Reranker | None:
        """The cross-encoder of the options."""
        from msmarco_qdrant.search import reranker_of

        return reranker_of(self._options.reranker, self._options.encoder_options)

    def _encoder_options(self) -> EncoderOptions:
        """With small batches on a CPU: a phrase waits for the one that is under way."""
        given = self._options.encoder_options
        on_cpu = devices_of(given.device or ALL_GPUS) == ["cpu"]
        if not on_cpu or given.tokens_per_batch is not None:
            return given
        return replace(given, tokens_per_batch=_TOKENS_ON_CPU)


class SharedModels:
    """Gives every part the same encoder of a model. Thread-safe.

    Args:
        source: What loads one that is not the last that was asked for.
    """

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._last: Encoder | None = None

    def new(self) -> Encoder:
        """The encoder of a new collection."""
        with self._lock:
            self._last = self._source.new()
            return self._last

    def of(self, card: EncoderCard) -> Encoder:
        """The encoder of a collection whose metadata hold that card."""
        with self._lock:
            if self._last is None or not _same(self._last.card, card):
                self._last = self._source.of(card)
            return self._last

    def reranker(self) -> Reranker | None:
        """What scores the best again, if anything does."""
        return self._source.reranker()


def _same(ours: EncoderCard, theirs: EncoderCard) -> bool:
    return (ours.fingerprint, ours.similarity) == (theirs.fingerprint, theirs.similarity)
