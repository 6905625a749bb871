"""Fakes for tests of code that uses this package: real classes, without a model or an engine.

`HashingEncoder` puts passages that share words near each other at next to no cost, so that tests
can ingest and search in milliseconds; `WordOverlapReranker` scores pairs by the words they share.
`NullStore` takes everything and keeps nothing, to measure or test what comes before the
store.
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

from msmarco_qdrant.core.records import (
    CollectionInfo,
    CollectionMetadata,
    CollectionSpec,
    EncodedBatch,
    EncoderInfo,
    PointBatch,
    PointId,
)
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import CollectionNotFoundError, EncodingError, UsageError
from msmarco_qdrant.stores import Capabilities, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


class HashingEncoder:
    """An encoder that hashes words: shared words make a high cosine.

    Deterministic and without state but for a count. A text without a word has no vector, which is
    how a test makes one be rejected.

    Args:
        dimension: Length of its vectors.
        salt: Another salt is another model: other vectors and another fingerprint.
        batch_size: Texts of a batch.

    Attributes:
        encoded: Passages encoded so far.
    """

    def __init__(self, dimension: int = 64, *, salt: str = "", batch_size: int = 256) -> None:
        self.encoded = 0
        self._lock = threading.Lock()
        self._tokenizer = HashingTokenizer(zlib.crc32(salt.encode()))
        self._batch_size = batch_size
        identity = f"costless {dimension} {salt}".encode()
        self._info = EncoderInfo(
            model=f"costless-{dimension}{salt}",
            fingerprint=hashlib.sha256(identity).hexdigest(),
            dimension=dimension,
            similarity="cosine",
        )

    @property
    def info(self) -> EncoderInfo:
        """What a collection has to know about it."""
        return self._info

    @property
    def tokenizer(self) -> HashingTokenizer:
        """What makes passages into the hashes of their words."""
        return self._tokenizer

    def warm_up(self) -> None:
        """Nothing happens once here."""

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Encode passages, in their order."""
        import numpy as np

        for start in range(0, len(passages), self._batch_size):
            positions = np.arange(start, min(start + self._batch_size, len(passages)))
            with self._lock:  # an encode has two shards under way at once
                self.encoded += len(positions)
            yield EncodedBatch(positions, self._vectors(passages.take(positions)))

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries: float32 `(len(queries), dimension)`.

        Raises:
            EncodingError: For a query without a word.
        """
        import numpy as np

        vectors = self._vectors(self._tokenizer(queries))
        if not np.isfinite(vectors).all():
            raise EncodingError("a query holds no word, so it has no vector")
        return vectors

    def _vectors(self, texts: Tokenized) -> NDArray[np.float32]:
        import numpy as np

        dimension = self._info.dimension
        rows = np.repeat(np.arange(len(texts)), texts.lengths)
        places = rows * dimension + texts.ids.view(np.uint32) % dimension
        counts = np.bincount(places, minlength=len(texts) * dimension)
        vectors = counts.reshape(len(texts), dimension).astype(np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, np.nan)
        return vectors


@dataclass(frozen=True, slots=True)
class HashingTokenizer:
    """A tokenizer whose tokens are words, and whose ids are hashes of them.

    Attributes:
        salt: Another salt makes other ids.
    """

    salt: int = 0

    @property
    def portable(self) -> bool:
        """It can be pickled."""
        return True

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """The hashes of each text's words, in lower case."""
        import numpy as np

        words = [_WORD.findall(text.lower()) for text in texts]
        hashes = [zlib.crc32(word.encode(), self.salt) for found in words for word in found]
        ids = np.array(hashes, np.uint32).view(np.int32)
        return Tokenized.from_lengths(ids, [len(found) for found in words])


class WordOverlapReranker:
    """A reranker that counts words: what a query and a passage share, of all that they hold.

    Deterministic and without state but for a count. Equal sets of words score 1, no shared word 0.

    Attributes:
        scored: Pairs scored so far.
    """

    model = "costless-reranker"

    def __init__(self) -> None:
        self.scored = 0
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Nothing happens once here."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Score pairs of a query and a passage: float32 `(len(pairs),)`, 0 to 1.

        Raises:
            UsageError: For one string, or one pair, instead of a list of pairs.
        """
        import numpy as np

        if isinstance(pairs, str) or any(isinstance(pair, str) for pair in pairs):
            raise UsageError("scores takes a list of pairs, each of a query and a passage")
        with self._lock:
            self.scored += len(pairs)
        return np.array([_overlap(query, passage) for query, passage in pairs], np.float32)


def _overlap(query: str, passage: str) -> float:
    """Of two texts' different words, the share that both hold."""
    one, other = (set(_WORD.findall(text.lower())) for text in (query, passage))
    return len(one & other) / max(len(one | other), 1)


class NullCollection:
    """A collection that counts what is written and keeps none of it."""

    def __init__(self, name: str, spec: CollectionSpec) -> None:
        self._name = name
        self._spec = spec
        self.points = 0

    def info(self) -> CollectionInfo:
        """The number of points that were written; nothing is indexed."""
        return CollectionInfo(
            name=self._name,
            points=self.points,
            indexed=0,
            segments=0,
            state="ready",
            last_seq=0,
            spec=self._spec,
        )

    def upsert(self, batch: PointBatch) -> None:
        """Count the points."""
        self.points += len(batch.ids)

    def replace_payloads(self, ids: Sequence[PointId], payloads: Sequence[dict[str, Any]]) -> None:
        """Do nothing."""

    def retrieve(
        self,
        ids: Sequence[PointId],  # noqa: ARG002
        fields: Sequence[str],  # noqa: ARG002
    ) -> Mapping[PointId, dict[str, Any]]:
        """Nothing is ever there."""
        return {}

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """No query finds anything."""
        return [[] for _ in queries]

    def delete(self, ids: Sequence[PointId], *, up_to_seq: int) -> None:
        """Do nothing."""

    def scan(self, fields: Sequence[str]) -> Iterator[tuple[PointId, dict[str, Any]]]:  # noqa: ARG002
        """Nothing is ever there."""
        return iter(())

    def flush(self) -> None:
        """Do nothing."""

    def optimize(self) -> None:
        """Do nothing."""


class NullStore(Store):
    """A store whose collections keep nothing; see `Store` for what its methods promise."""

    dsn = "discarding"
    capabilities = Capabilities(engine="Discarding")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._collections: dict[str, NullCollection] = {}
        self._metadata: dict[str, CollectionMetadata] = {}
        self._aliases: dict[str, str] = {}

    def create_collection(self, name: str, spec: CollectionSpec) -> None:
        """Begin to count for a collection."""
        self._collections[name] = NullCollection(name, spec)

    def drop_collection(self, name: str) -> None:
        """Forget a collection and its aliases."""
        if name not in self._collections:
            raise CollectionNotFoundError(f"no collection '{name}' in the discarding store")
        del self._collections[name]
        self._aliases = {a: n for a, n in self._aliases.items() if n != name}

    def collection(self, name: str) -> NullCollection:
        """The collection behind a name."""
        return self._collections[self._resolve(name)]

    def metadata(self, name: str) -> CollectionMetadata:
        """The metadata that were put, which is all that is kept."""
        return self._metadata[self._resolve(name)]

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Keep the metadata."""
        self._metadata[self._resolve(name)] = metadata

    def lock(self) -> AbstractContextManager[object]:
        """Held while a collection is made."""
        return self._lock

    def aliases(self) -> Mapping[str, str]:
        """Every alias and what it stands for."""
        return dict(self._aliases)

    def physical_names(self) -> Sequence[str]:
        """Every collection that counts."""
        return sorted(self._collections)

    def set_alias(self, alias: str, name: str) -> None:
        """Let an alias stand for a collection."""
        self._aliases[alias] = name

    def close(self) -> None:
        """Do nothing."""

    def _resolve(self, name: str) -> str:
        physical = self._aliases.get(name, name)
        if physical not in self._collections:
            raise CollectionNotFoundError(f"no collection '{name}' in the discarding store")
        return physical
