"""A ranker of Haystack with a cross-encoder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import Any, cast

from msmarco_qdrant.encoding import Reranker, load_reranker
from msmarco_qdrant.encoding.options import Precision
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.haystack.embedders import join_fields

with imports_of("haystack", "the Haystack integration", "haystack"):
    from haystack import component, default_from_dict, default_to_dict
    from haystack.dataclasses import Document


@component
class MsmarcoRanker:
    """Orders documents by the scores of a cross-encoder, which reads query and document together.

    Args:
        model: The cross-encoder: a directory, a name of the catalog, or a hub id.
        top_k: Most documents to return; None for all.
        meta_fields_to_embed: Fields of `meta` to put in front of the content.
        embedding_separator: Text between these.
        score_threshold: Omit documents with a lower score.
        device: "cpu", "cuda" or "cuda:1"; by default the best one.
        precision: "float32", "bfloat16" or "float16"; by default the fast one of the device.

    Raises:
        UsageError: For an invalid `top_k`.
    """

    def __init__(  # all but one have defaults
        self,
        model: str | PathLike[str],
        *,
        top_k: int | None = None,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
        score_threshold: float | None = None,
        device: str | None = None,
        precision: Precision | None = None,
    ) -> None:
        _check_top_k(top_k)
        self._parameters: dict[str, Any] = {
            "model": fspath(model),
            "top_k": top_k,
            "meta_fields_to_embed": [*meta_fields_to_embed],
            "embedding_separator": embedding_separator,
            "score_threshold": score_threshold,
            "device": device,
            "precision": precision,
        }
        self._lock = threading.Lock()
        self._reranker: Reranker | None = None

    def warm_up(self) -> None:
        """Load the model."""
        self._load()

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component."""
        data: dict[str, Any] = default_to_dict(self, **self._parameters)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MsmarcoRanker:
        """Make the component that `to_dict` serialized."""
        return cast("MsmarcoRanker", default_from_dict(cls, data))

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Order documents by descending score; of those with the same id the first one counts.

        Args:
            query: The query.
            documents: The documents.
            top_k: Most documents to return, instead of the component's.

        Raises:
            UsageError: For an empty query or an invalid `top_k`.
            EncodingError: If the model fails.
        """
        if not isinstance(query, str) or not query.strip():
            raise UsageError(f"query must be a non-empty string, got {query!r}")
        _check_top_k(top_k)
        own = self._parameters
        distinct = [*{document.id: document for document in reversed(documents)}.values()][::-1]
        if not distinct:
            return {"documents": []}
        fields, separator = own["meta_fields_to_embed"], own["embedding_separator"]
        pairs = [(query, join_fields(document, fields, separator)) for document in distinct]
        scores = self._load().scores(pairs).tolist()
        order = sorted(range(len(distinct)), key=lambda at: -scores[at])
        least = own["score_threshold"]
        ranked = [
            replace(distinct[at], score=scores[at])
            for at in order
            if least is None or scores[at] >= least
        ]
        return {"documents": ranked[: own["top_k"] if top_k is None else top_k]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Order documents in a thread; see `run`."""
        return await asyncio.to_thread(self.run, query, documents, top_k)

    def _load(self) -> Reranker:
        with self._lock:
            if self._reranker is None:
                own = self._parameters
                self._reranker = load_reranker(
                    own["model"], device=own["device"], precision=own["precision"]
                )
            return self._reranker


def _check_top_k(top_k: object) -> None:
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise UsageError(f"top_k must be 1 or more, or None for all, got {top_k!r}")
