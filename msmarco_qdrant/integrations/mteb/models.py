"""Models of MTEB: searches of tasks through a collection in Qdrant, and an encoder for the others.

MTEB gives a task's corpus to a model and asks it queries. `MsmarcoSearch` ingests the corpus into a
collection, and answers by searches of it. So a result measures what an application gets: encoder,
quantization, index, hybrid search and reranking together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.options import RERANK_DEPTH, SearchOptions
from msmarco_qdrant.stores import Store

with imports_of("mteb", "the MTEB integration", "mteb"):
    from mteb._create_dataloaders import create_dataloader
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction
    from mteb.types import PromptType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scores: TypeAlias = dict[str, dict[str, float]]
"""The scores of the passages that each query finds, by query and pid."""

_BATCH: Final = 256
_MAX_HITS: Final = 10_000
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]+")


class MsmarcoEncoder(AbsEncoder):
    """An encoder as a model of MTEB, for tasks of every kind.

    Args:
        encoder: The encoder. Its own prompts are used, not those of the tasks.

    Attributes:
        mteb_model_meta: The description that MTEB stores with results.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.mteb_model_meta = model_meta(encoder)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        prompt_type: PromptType | None = None,
        **_task: Any,
    ) -> NDArray[np.float32]:
        """Encode texts.

        Args:
            inputs: Batches of texts.
            prompt_type: The kind of the texts; those of neither kind are encoded as passages.

        Returns:
            float32 `(texts, dimension)`.

        Raises:
            EncodingError: If a text has no finite, non-zero vector.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        if prompt_type == PromptType.query:
            return self._encoder.encode_queries(texts)
        return encode_texts(self._encoder, texts)


class MsmarcoSearch:
    """A collection as a search model of MTEB (its `SearchProtocol`), for retrieval and reranking.

    Each corpus becomes a collection of the store, whose name has those of its task, subset and
    split. It stays: another run encodes nothing again. Texts are those that MTEB gives its own
    models; the task's instructions are part of its queries.

    Args:
        store: An open store, which is not closed.
        encoder: The encoder.
        mode: "dense", "bm25" or "hybrid".
        exact: Compare with every vector, instead of searching the graph.
        reranker: A cross-encoder that scores the best hits again.
        rerank_depth: Their number, 100 by default; a query has no more hits than that.
        progress: Show the ingest on standard error.

    Attributes:
        mteb_model_meta: The description that MTEB stores with results.

    Raises:
        UsageError: For a depth without a reranker.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        *,
        mode: SearchMode = "dense",
        exact: bool = False,
        reranker: Reranker | None = None,
        rerank_depth: int | None = None,
        progress: bool = False,
    ) -> None:
        if rerank_depth is not None and reranker is None:
            raise UsageError("rerank_depth needs a reranker, got none: pass reranker=...")
        self._store = store
        self._encoder = encoder
        self._mode: SearchMode = mode
        self._exact = exact
        self._reranker = reranker
        self._depth = (rerank_depth or RERANK_DEPTH) if reranker else None
        self._progress = progress
        self.mteb_model_meta = model_meta(
            encoder,
            mode=mode,
            exact=exact,
            **({"reranker": reranker.model, "rerank_depth": self._depth} if reranker else {}),
        )

    def index(
        self,
        corpus: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        **_more: Any,
    ) -> None:
        """Ingest a corpus; unchanged passages are skipped, and those of no row are deleted.

        Rows without a text are left out, with a warning: several data sets have some.

        Raises:
            IngestStoppedError: If the ingest fails.
        """
        ingest_passages(
            _passages(corpus, task_metadata),
            self._store,
            collection=collection_name(task_metadata.name, hf_subset, hf_split),
            encoder=self._encoder,
            prune=PrunePolicy(max_share=1.0, allow_rejects=True),
            progress=self._progress,
        )

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_more: Any,
    ) -> Scores:
        """Search for queries in the corpus that was indexed, or rank given passages.

        Args:
            queries: The queries.
            task_metadata: The task.
            hf_split: Its split.
            hf_subset: Its subset.
            top_k: Most passages of a query, at most 10,000.
            top_ranked: The passages of each query to rank; None to search.

        Returns:
            The scores of the passages, by query and pid.
        """
        name = collection_name(task_metadata.name, hf_subset, hf_split)
        found: Scores = {}
        with SearchClient(self._store, name, self._encoder, reranker=self._reranker) as client:
            for ids, texts in _texts(queries, task_metadata, PromptType.query):
                if top_ranked is None:
                    hits = client.search_many(texts, **self._options(top_k))
                else:
                    hits = client.rank_many(
                        texts,
                        [top_ranked.get(one, ()) for one in ids],
                        mode=self._mode,
                        rerank=self._reranker is not None,
                    )
                for query, ranked in zip(ids, hits, strict=True):
                    found[query] = {hit.pid: hit.score for hit in ranked[:top_k]}
        return found

    def _options(self, top_k: int) -> SearchOptions:
        limit = min(top_k, _MAX_HITS)
        options: SearchOptions = {
            "mode": self._mode,
            "exact": self._exact,
            "with_text": False,
            "with_meta": False,
        }
        if self._depth is None:
            return {**options, "limit": limit}
        return {**options, "limit": min(limit, self._depth), "rerank_depth": self._depth}


def model_meta(encoder: Encoder, **options: Any) -> ModelMeta:
    """Describe an encoder to MTEB.

    Args:
        encoder: The encoder.
        options: Options of a search: results of other options are stored apart.
    """
    info = encoder.info
    model = info.model.rstrip("/").rsplit("/", 1)[-1]
    is_cosine = info.similarity == "cosine"
    return ModelMeta.create_empty(
        {
            "name": f"msmarco-qdrant/{model}",
            "revision": info.fingerprint[:40],
            "embed_dim": info.dimension,
            "max_tokens": info.max_seq_length,
            "similarity_fn_name": (
                ScoringFunction.COSINE if is_cosine else ScoringFunction.DOT_PRODUCT
            ),
            "framework": ["Sentence Transformers"],
            "experiment_kwargs": options or None,
        }
    )


def collection_name(task: str, subset: str, split: str) -> str:
    """Return the name of a corpus' collection; a long one is shortened, with a digest."""
    words = ("mteb", task, subset, split)
    name = "-".join(_NOT_IN_NAMES.sub("_", word) for word in words)
    if len(name) <= 63 and all(word == _NOT_IN_NAMES.sub("_", word) for word in words):
        return name
    return f"{name[:46]}-{blake2b(chr(0).join(words).encode(), digest_size=8).hexdigest()}"


def _passages(corpus: Any, task_metadata: Any) -> Iterator[Passage]:
    for ids, texts in _texts(corpus, task_metadata, PromptType.document):
        yield from map(Passage, ids, texts)


def _texts(
    rows: Any, task_metadata: Any, kind: PromptType
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield ids and texts in batches; texts as MTEB makes them, with titles and instructions."""
    ids = iter(rows["id"])
    loader = create_dataloader(
        rows, task_metadata=task_metadata, prompt_type=kind, batch_size=_BATCH
    )
    for batch in loader:
        texts = [*batch["text"]]
        yield [next(ids) for _ in texts], texts
