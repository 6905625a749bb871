"""Judges: a cross-encoder, or a bi-encoder, as one that scores batches of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from msmarco_qdrant.encoding.catalog import find_published
from msmarco_qdrant.encoding.checks import (
    applies_sigmoid,
    check_encoder,
    check_reranker,
    encode_queries,
    score_pairs,
)
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.train.out_folder import digest_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msmarco_qdrant.encoding import Encoder, EncoderOptions, Reranker

Pairs: TypeAlias = Sequence[tuple[str, str]]

Judge: TypeAlias = "Reranker | Encoder | str | PathLike[str]"
"""A cross-encoder, a bi-encoder, or the location of one."""


class Scorer(Protocol):
    """A judge of pairs."""

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    @property
    def scale(self) -> str:
        """The kind of its scores: "logit", "probability", "cosine" or "dot"."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what decides about its scores, for the settings of a folder."""
        ...

    def score_batches(self, batches: Iterable[Pairs]) -> Iterator[NDArray[np.float32]]:
        """Yield the scores of each batch of pairs (query, passage), float32 `(n,)`, in order."""
        ...


@dataclass(frozen=True, slots=True)
class JudgeInfo:
    """Properties of a judge.

    Attributes:
        model: The model's name.
        scale: The kind of its scores.
        identity: What decides about its scores.
    """

    model: str
    scale: str
    identity: Mapping[str, Any]

    @classmethod
    def of(cls, scorer: Scorer) -> JudgeInfo:
        """Return the properties of a scorer."""
        return cls(scorer.model, scorer.scale, scorer.identity())


def to_scorer(judge: Judge) -> Scorer:
    """Return the scorer of a judge; one that is named is loaded.

    Raises:
        UsageError: If it is neither a reranker nor an encoder.
        ModelNotFoundError: If it cannot be loaded.
    """
    if isinstance(judge, str | PathLike):
        judge = load_judge(judge)
    if hasattr(judge, "scores"):
        check_reranker(judge)
        return _PairScorer(cast("Reranker", judge))
    if not hasattr(judge, "encode_queries"):
        raise UsageError(
            f"judge must be a cross-encoder or a bi-encoder, got {type(judge).__name__}: pass "
            "load_reranker(NAME_OR_DIRECTORY) or load_encoder(NAME_OR_DIRECTORY)"
        )
    check_encoder(judge)
    return _VectorScorer(judge)


def load_judge(
    model: str | PathLike[str], options: EncoderOptions | None = None
) -> Reranker | Encoder:
    """Load a judge: a bi-encoder of the catalog or in a directory as that, else a cross-encoder.

    Args:
        model: A directory, a name of the catalog, or a hub id.
        options: Device, precision and so on; None for the fastest.

    Raises:
        ModelNotFoundError: If it cannot be loaded.
        UsageError: For a baseline of the catalog, or options that cannot be met.
    """
    from msmarco_qdrant.encoding import EncoderOptions, load_encoder
    from msmarco_qdrant.search.client import load_reranker_for

    options = options or EncoderOptions()
    if not _is_bi_encoder(model):
        return cast("Reranker", load_reranker_for(model, options))
    return load_encoder(
        model,
        device=options.device,
        precision=options.precision,
        tokens_per_batch=options.tokens_per_batch,
    )


def _is_bi_encoder(model: str | PathLike[str]) -> bool:
    modules = Path(model) / "modules.json"
    if modules.is_file():
        return b"Pooling" in modules.read_bytes()
    published = find_published(str(model))
    return published is not None and published.kind == "bi-encoder"


class _PairScorer:
    """A cross-encoder."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        self.model = reranker.model
        self.scale = "probability" if applies_sigmoid(reranker) else "logit"

    def identity(self) -> dict[str, Any]:
        location = str(getattr(self._reranker, "location", ""))
        is_folder = bool(location) and Path(location).is_dir()
        return {
            "judge": self.model,
            "judge_files": digest_files(location) if is_folder else None,
            "precision": getattr(self._reranker, "precision", None),
        }

    def score_batches(self, batches: Iterable[Pairs]) -> Iterator[NDArray[np.float32]]:
        stream: Any = getattr(self._reranker, "score_batches", None)
        if stream is not None:  # it reads and tokenizes ahead
            yield from stream(batches)
            return
        for pairs in batches:
            yield score_pairs(self._reranker, pairs)


class _VectorScorer:
    """A bi-encoder: the cosine or the dot product of both vectors."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.model = encoder.info.model
        self.scale = encoder.info.similarity

    def identity(self) -> dict[str, Any]:
        return {
            "judge": self.model,
            "judge_files": self._encoder.info.fingerprint,
            "precision": getattr(self._encoder, "precision", None),
        }

    def score_batches(self, batches: Iterable[Pairs]) -> Iterator[NDArray[np.float32]]:
        for pairs in batches:
            yield self._score(pairs)

    def _score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Encode each different text once."""
        import numpy as np

        if not pairs:
            return np.empty(0, np.float32)
        queries = {query: row for row, query in enumerate(dict.fromkeys(q for q, _ in pairs))}
        passages = {text: row for row, text in enumerate(dict.fromkeys(p for _, p in pairs))}
        left = encode_queries(self._encoder, [*queries])[[queries[query] for query, _ in pairs]]
        right = encode_texts(self._encoder, [*passages])[[passages[text] for _, text in pairs]]
        scores: NDArray[np.float32] = np.einsum("ij,ij->i", left, right)
        return scores
