"""The passages in a collection that another program wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from os import PathLike
from typing import Any, Literal, Self, TypeAlias, get_args

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.sources.payload_shapes import (
    PayloadPassage,
    Shape,
    detect_shape,
    find_text_field,
    parse_payload,
)
from msmarco_qdrant.sources.rejects import reject_passage
from msmarco_qdrant.sources.rows import RowError, check_passage
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store
from msmarco_qdrant.stores.open import use_foreign_store
from msmarco_qdrant.stores.protocols import PointReader

Pids: TypeAlias = Literal["point", "content"]

_SAMPLE = 256
_Point: TypeAlias = tuple[PointId, dict[str, Any]]


class ForeignPassages:
    """The passages in a collection of LangChain, LlamaIndex, Haystack or qdrant-client.

    An iterable for `ingest_passages`, which encodes them into a collection of this package. The
    collection is only read. Each iteration reads it again, in the order of point ids. The shape of
    each payload is detected. Of points with the same text and the same metadata, the first is a
    passage, and the others are counted.

    Args:
        points: The collection.
        text_field: Payloads of no framework: the field with the text. By default it is detected.
        pid_field: The field of the metadata with the pid. By default the id that the framework
            gave it, or the point's.
        pids: "content" to derive pids from text and metadata, for collections whose point ids
            change with each import, such as the random UUIDs of LangChain.

    Attributes:
        duplicates: Points with the text and the metadata of an earlier one, of the last iteration.

    Raises:
        UsageError: For an invalid argument.
    """

    def __init__(
        self,
        points: PointReader,
        *,
        text_field: str | None = None,
        pid_field: str | None = None,
        pids: Pids = "point",
    ) -> None:
        for name, value in (("text_field", text_field), ("pid_field", pid_field)):
            if value is not None and not (isinstance(value, str) and value):
                raise UsageError(f"{name} must be the name of a field, got {value!r}")
        if pids not in get_args(Pids):
            raise UsageError(f"pids must be {' or '.join(get_args(Pids))}, got {pids!r}")
        if pid_field is not None and pids == "content":
            raise UsageError(f"pass pid_field={pid_field!r} or pids='content', not both")
        self._points = points
        self._text_field = text_field
        self._pid_field = pid_field
        self._pids = pids
        self._opened = ExitStack()
        self._shapes: Counter[str] = Counter()
        self.duplicates = 0

    @classmethod
    @suggest_keywords
    def open(
        cls,
        collection: str,
        store: Store | str | PathLike[str],
        *,
        text_field: str | None = None,
        pid_field: str | None = None,
        pids: Pids = "point",
        connection: Connection = DEFAULT_CONNECTION,
    ) -> Self:
        """Open a collection of another program.

        Args:
            collection: Its name, or an alias.
            store: The URL of a Qdrant server, a folder of `QdrantClient(path=...)`, or an open
                store.
            text_field: See the class.
            pid_field: See the class.
            pids: See the class.
            connection: API key, port and timeouts, if `store` is a URL.

        Raises:
            CollectionNotFoundError: If the collection does not exist.
            StoreError: If the store cannot be opened.
            UsageError: If the collection is one of this package, or an argument is invalid.
        """
        with ExitStack() as stack:
            points = stack.enter_context(use_foreign_store(store, connection)).point_reader(
                collection
            )
            passages = cls(points, text_field=text_field, pid_field=pid_field, pids=pids)
            passages._opened = stack.pop_all()
        return passages

    @property
    def shapes(self) -> dict[str, int]:
        """Number of points of each shape, of the last iteration."""
        return {**self._shapes}

    def __iter__(self) -> Iterator[Passage | Reject]:
        """Yield each passage, and a reject for each point that is none.

        Raises:
            SourceError: If the field with the text cannot be detected.
            StoreError: If a page cannot be read, or if fewer points were read than the collection
                has.
        """
        before = self._points.count()
        shapes: Counter[str] = Counter()
        self._shapes, self.duplicates = shapes, 0
        seen = PidSet()
        points = self._points.scan()
        sample = [*islice(points, _SAMPLE)]
        text_field = self._find_text_field(sample)
        for id_, payload in chain(sample, points):
            shape = detect_shape(payload)
            shapes[shape] += 1
            passage = self._passage(id_, payload, shape, text_field)
            if isinstance(passage, Passage) and not seen.add(_content(passage)):
                self.duplicates += 1
            else:
                yield passage
        self._check_count(sum(shapes.values()), before)

    def close(self) -> None:
        """Close the store if `open` opened it. Closing twice is harmless."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find_text_field(self, sample: list[_Point]) -> str:
        if self._text_field is not None:
            return self._text_field
        plain = [payload for _, payload in sample if detect_shape(payload) == "plain"]
        return find_text_field(plain) if plain else ""

    def _passage(
        self, id_: PointId, payload: dict[str, Any], shape: Shape, text_field: str
    ) -> Passage | Reject:
        """Return the passage of a point, or the reject of one without."""
        source = f"collection {self._points.name}, point {id_}"
        try:
            found = parse_payload(payload, shape, text_field)
            pid = self._pid(id_, found)
            passage = check_passage(Passage(pid, found.text, found.meta, source))
        except RowError as exc:
            return reject_passage(Passage(str(id_), "", {"payload": payload}, source), str(exc))
        if self._pids == "content":
            return replace(passage, pid=text_digest(_content(passage)))
        return passage

    def _pid(self, id_: PointId, found: PayloadPassage) -> str:
        if self._pid_field is None:
            return found.pid or str(id_)
        if self._pid_field not in found.meta:
            raise RowError(f"no field '{self._pid_field}' for the pid")
        pid: str = found.meta[self._pid_field]
        return pid

    def _check_count(self, read: int, before: int) -> None:
        """Require that every point was read, as far as counts before and after can show it."""
        expected = min(before, self._points.count())
        if read < expected:
            raise StoreError(
                f"collection '{self._points.name}' in {self._points.dsn} has {expected:,} points, "
                f"but only {read:,} could be read: run it again when all nodes answer"
            )


def _content(passage: Passage) -> str:
    """Return the digests of a passage's text and metadata."""
    return text_digest(passage.text) + meta_digest(passage.meta)
