"""Fakes for tests of code that uses this package: real classes, without a model or an engine.

`HashingEncoder` gives passages with common words similar vectors, so that tests ingest and search
in milliseconds. `WordOverlapReranker` scores pairs by their common words. `NullStore` accepts all
writes and stores nothing, to test or measure the stages before the store.
"""

from __future__ import annotations

import hashlib
import re
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.collection_types import CollectionInfo, CollectionSpec, PointBatch, PointId
from msmarco_qdrant.core.encoder_types import EncodedBatch, EncoderInfo
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.search_types import (
    Facet,
    OrderedPoint,
    PointOrder,
    PointQuery,
    ScoredPoint,
)
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError, StoreCorruptError, UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.stores import INDEX_STALL_S, Capabilities, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


class HashingEncoder:
    """An encoder that hashes words: common words give a high cosine.

    It is deterministic; its only state is a count. A text without words has no vector, so a test
    can produce a reject.

    Args:
        dimension: Length of the vectors.
        salt: Another salt is another model: other vectors and another fingerprint.
        batch_size: Texts per batch.

    Attributes:
        encoded: Passages encoded so far.
    """

    def __init__(self, dimension: int = 64, *, salt: str = "", batch_size: int = 256) -> None:
        self.encoded = 0
        self._lock = threading.Lock()
        self._tokenizer = HashingTokenizer(zlib.crc32(salt.encode()))
        self._batch_size = batch_size
        # Stored collections contain the name and fingerprint: do not change them.
        identity = f"costless {dimension} {salt}".encode()
        self._info = EncoderInfo(
            model=f"costless-{dimension}{salt}",
            fingerprint=hashlib.sha256(identity).hexdigest(),
            dimension=dimension,
            similarity="cosine",
        )

    def __repr__(self) -> str:
        return f"HashingEncoder(dimension={self._info.dimension}, model={self._info.model!r})"

    @property
    def info(self) -> EncoderInfo:
        """The properties that a collection stores."""
        return self._info

    @property
    def tokenizer(self) -> HashingTokenizer:
        """The tokenizer: hashes of words."""
        return self._tokenizer

    def warm_up(self) -> None:
        """Do nothing."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts as passages: float32 `(len(texts), dimension)`; see `encode_texts`."""
        return encode_texts(self, texts)

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Encode passages in order; strings to one array, as `BiEncoder` does."""
        if not isinstance(passages, Tokenized):
            return encode_texts(self, passages)
        return self._batches(passages)

    def _batches(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        import numpy as np

        for start in range(0, len(passages), self._batch_size):
            positions = np.arange(start, min(start + self._batch_size, len(passages)))
            with self._lock:  # an encode runs two shards at once
                self.encoded += len(positions)
            yield EncodedBatch(positions, self._vectors(passages.take(positions)))

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries: float32 `(len(queries), dimension)`.

        Raises:
            EncodingError: If a query has no words.
        """
        import numpy as np

        vectors = self._vectors(self._tokenizer(queries))
        if not np.isfinite(vectors).all():
            raise EncodingError("a query must have a word to have a vector, got one without")
        return vectors

    def _vectors(self, texts: Tokenized) -> NDArray[np.float32]:
        import numpy as np

        dimension = self._info.dimension
        rows = np.repeat(np.arange(len(texts)), texts.lengths)
        cells = rows * dimension + texts.ids.view(np.uint32) % dimension
        counts = np.bincount(cells, minlength=len(texts) * dimension)
        vectors = counts.reshape(len(texts), dimension).astype(np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, np.nan)
        return vectors


@dataclass(frozen=True, slots=True)
class HashingTokenizer:
    """A tokenizer with words as tokens and their hashes as ids.

    Attributes:
        salt: Another salt gives other ids.
    """

    salt: int = 0

    @property
    def portable(self) -> bool:
        """True: it can be pickled."""
        return True

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Hash the words of each text, in lower case."""
        import numpy as np

        words = [_WORD.findall(text.lower()) for text in texts]
        hashes = [zlib.crc32(word.encode(), self.salt) for row in words for word in row]
        ids = np.array(hashes, np.uint32).view(np.int32)
        return Tokenized.from_lengths(ids, [len(row) for row in words])


class WordOverlapReranker:
    """A reranker that scores the share of common words of a query and a passage.

    It is deterministic; its only state is a count. Equal sets of words score 1, disjoint ones 0.

    Attributes:
        scored: Pairs scored so far.
    """

    model = "word-overlap"

    def __init__(self) -> None:
        self.scored = 0
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Do nothing."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Score pairs of a query and a passage: float32 `(len(pairs),)`, 0 to 1.

        Raises:
            UsageError: For a string or a single pair instead of a list of pairs.
        """
        import numpy as np

        if isinstance(pairs, str) or any(isinstance(pair, str) for pair in pairs):
            raise UsageError(
                "pairs must be a list of pairs of a query and a passage, got a string or one pair"
            )
        with self._lock:
            self.scored += len(pairs)
        return np.array([_overlap(query, passage) for query, passage in pairs], np.float32)


def _overlap(query: str, passage: str) -> float:
    """Return the share of the distinct words that both texts have (Jaccard index)."""
    left, right = (set(_WORD.findall(text.lower())) for text in (query, passage))
    return len(left & right) / max(len(left | right), 1)


class NullCollection:
    """A collection that counts written points and stores none."""

    def __init__(self, name: str, spec: CollectionSpec) -> None:
        self._name = name
        self._spec = spec
        self.points = 0

    def info(
        self,
        *,
        all_replicas: bool = True,  # noqa: ARG002  # there is one
    ) -> CollectionInfo:
        """Return the number of written points; none are indexed."""
        return CollectionInfo(
            name=self._name,
            points=self.points,
            indexed=0,
            segments=0,
            state="ready",
            last_seq=0,
            spec=self._spec,
        )

    def spec(self) -> CollectionSpec:
        """Return the settings."""
        return self._spec

    def upsert(self, batch: PointBatch) -> None:
        """Count the points."""
        self.points += len(batch.ids)

    def replace_payloads(self, ids: Sequence[PointId], payloads: Sequence[dict[str, Any]]) -> None:
        """Do nothing."""

    def retrieve(
        self,
        ids: Sequence[PointId],  # noqa: ARG002
        fields: Sequence[str],  # noqa: ARG002
        *,
        all_replicas: bool = False,  # noqa: ARG002
    ) -> Mapping[PointId, dict[str, Any]]:
        """Return no points."""
        return {}

    def count(self, meta_filter: SearchFilter | None = None, *, exact: bool = True) -> int:  # noqa: ARG002
        """Return the number of written points; none of them match a filter."""
        return self.points if meta_filter is None else 0

    def facet(
        self,
        key: str,  # noqa: ARG002
        *,
        limit: int,  # noqa: ARG002
        meta_filter: SearchFilter | None = None,  # noqa: ARG002
        exact: bool = True,  # noqa: ARG002
    ) -> list[Facet] | None:
        """Return None, as it has no indexes."""
        return None

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Return an empty list per query."""
        return [[] for _ in queries]

    def delete(self, ids: Sequence[PointId], *, up_to_seq: int) -> None:
        """Do nothing."""

    def scan(
        self,
        fields: Sequence[str],  # noqa: ARG002
        *,
        all_replicas: bool = False,  # noqa: ARG002
        meta_filter: SearchFilter | None = None,  # noqa: ARG002
        start: PointId | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Return no points."""
        return iter(())

    def read_ordered(
        self,
        order: PointOrder,  # noqa: ARG002
        fields: Sequence[str],  # noqa: ARG002
        *,
        limit: int,  # noqa: ARG002
        meta_filter: SearchFilter | None = None,  # noqa: ARG002
    ) -> list[OrderedPoint] | None:
        """Return no points."""
        return []

    def flush(self) -> None:
        """Do nothing."""

    def optimize(self, *, stall_s: float = INDEX_STALL_S) -> None:
        """Do nothing."""


class NullStore(Store):
    """A store whose collections store nothing; see `Store`."""

    dsn = "null"
    capabilities = Capabilities(engine="Null")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._collections: dict[str, NullCollection] = {}
        self._metadata: dict[str, CollectionMetadata] = {}
        self._aliases: dict[str, str] = {}

    def create_collection(
        self, name: str, spec: CollectionSpec, metadata: CollectionMetadata | None = None
    ) -> None:
        """Create a collection."""
        self._collections[name] = NullCollection(name, spec)
        if metadata is not None:
            self._metadata[name] = metadata

    def drop_collection(self, name: str) -> None:
        """Delete a collection and its aliases."""
        self._check_physical(name)
        del self._collections[name]
        self._aliases = {a: n for a, n in self._aliases.items() if n != name}

    def collection(self, name: str) -> NullCollection:
        """Return a collection by name or alias."""
        return self._collections[self._resolve(name)]

    def metadata(self, name: str) -> CollectionMetadata:
        """Return the metadata of a collection."""
        physical = self._resolve(name)
        if physical not in self._metadata:
            raise StoreCorruptError(f"collection '{physical}' has no metadata: create it again")
        return self._metadata[physical]

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Store the metadata of a collection, in memory."""
        self._metadata[self._resolve(name)] = metadata

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock for creating collections."""
        return self._lock

    def aliases(self) -> Mapping[str, str]:
        """Return the collection of each alias."""
        return dict(self._aliases)

    def physical_names(self) -> Sequence[str]:
        """List the collections."""
        return sorted(self._collections)

    def set_alias(self, alias: str, name: str) -> None:
        """Point an alias to a collection."""
        self._aliases[alias] = name

    def remove_alias(self, alias: str) -> None:
        """Remove an alias."""
        self._aliases.pop(alias, None)

    def close(self) -> None:
        """Do nothing."""
