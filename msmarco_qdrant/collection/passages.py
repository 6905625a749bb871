"""Passages by their pids: read some, remove some, or write all of them to a file."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from msmarco_qdrant.collection.delete import delete_pids
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import Passage, PointId
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.runtime.atomic_file import atomic_write
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES
from msmarco_qdrant.sources.parquet import check_extra, write_parquet
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Collection, Connection, Store, open_store
from msmarco_qdrant.stores.payload import HIT_FIELDS, check_pid, passage_of, point_id

_log = logging.getLogger(__name__)

_AT_ONCE = 1000
_LINES_SUFFIXES = (".jsonl", ".ndjson")
_PARQUET_SUFFIX = ".parquet"

_Place: TypeAlias = Store | str | PathLike[str]


def get_passages(
    store: _Place,
    pids: Iterable[str],
    *,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
) -> dict[str, Passage]:
    """Passages by their pids.

    Args:
        store: An open store, which stays the caller's, or where one is.
        pids: The pids of the passages wanted.
        collection: The collection's name.
        connection: The API key, port and time limits of a server, where `store` is a URL.

    Returns:
        Those that exist, by pid, in the order asked.

    Raises:
        UsageError: For a pid that is no non-empty string.
        PidCollisionError: If a point holds another pid than its id stands for.
        StoreError: If the store cannot be opened or read, or holds no such collection.
    """
    found: dict[str, Passage] = {}
    with _opened(store, connection) as opened:
        source = opened.collection(collection)
        for batch in in_batches(_checked(pids), _AT_ONCE):
            payloads = _retrieved(source, batch, HIT_FIELDS)
            found.update(
                (pid, passage_of(point_id(pid), payload)) for pid, payload in payloads.items()
            )
    return found


def delete_passages(
    store: _Place,
    pids: Iterable[str],
    *,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Remove passages by their pids. Repeating it is harmless.

    While the collection is re-embedded they go from the old vectors' and from the new ones'.

    Args:
        store: An open store, which stays the caller's, or where one is.
        pids: The pids of the passages to remove; they are taken a batch at a time.
        collection: The collection's name.
        connection: The API key, port and time limits of a server, where `store` is a URL.

    Returns:
        The number of passages that were there and are gone now, durably. One that another writer
        brings back meanwhile stays.

    Raises:
        UsageError: For a pid that is no non-empty string; those of earlier batches are gone.
        PidCollisionError: If a point holds another pid than its id stands for; it stays.
        StoreError: If the store cannot be opened or written, or holds no such collection.
    """
    with _opened(store, connection) as opened:
        return delete_pids(opened, collection, _checked(pids))


def export_passages(
    store: _Place,
    path: str | PathLike[str],
    *,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write every passage of a collection to a file that `ingest_passages` reads back unchanged.

    A row holds `pid`, `text` and `meta`; in Parquet, `meta` is JSON text. Memory does not grow
    with the collection. The file appears under its name when it is complete, or not at all.
    Numbers are as the engine gives them back: Qdrant's core reads some floats of more than 15
    digits with another last one.

    Args:
        store: An open store, which stays the caller's, or where one is.
        path: The file; its name chooses the form: `.jsonl` or `.ndjson`, either with `.gz` behind
            it, or `.parquet` (extra `parquet`).
        collection: The collection's name.
        connection: The API key, port and time limits of a server, where `store` is a URL.
        on_progress: Called now and then with the passages written and those that there are.

    Returns:
        The number of passages written.

    Raises:
        UsageError: For a name that tells none of these forms.
        MissingExtraError: For Parquet without the extra `parquet`.
        OutputError: If the file cannot be written.
        PidCollisionError: If a point was not written by this package.
        StoreError: If the store cannot be opened or read, or holds no such collection.
    """
    path = Path(path)
    write = _writer(path)
    with _opened(store, connection) as opened:
        source = opened.collection(collection)
        passages = _Told(_scanned(source), source.info().points, on_progress)
        with atomic_write(path) as file:
            write(passages, file)
    return passages.done


# ---- points as passages --------------------------------------------------------------------


def _opened(store: _Place, connection: Connection) -> AbstractContextManager[Store]:
    """A store of ours, closed at the end, or the caller's own as it is."""
    if isinstance(store, str | PathLike):
        return closing(open_store(store, connection=connection))
    return nullcontext(store)


def _checked(pids: Iterable[str]) -> Iterator[str]:
    if isinstance(pids, str):
        raise UsageError("pids are several: pass a list, of one pid as well")
    for pid in pids:
        if not isinstance(pid, str) or not pid:
            raise UsageError(f"{pid!r} is no pid: expected a string that is not empty")
        if any("\ud800" <= character <= "\udfff" for character in pid):
            raise UsageError(f"the pid {pid!r} holds a lone surrogate: expected text")
        yield pid


def _retrieved(
    collection: Collection, pids: list[str], fields: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """The payloads of those pids that exist, each checked to be its own, in the order asked."""
    ids: dict[str, PointId] = {pid: point_id(pid) for pid in pids}
    payloads = collection.retrieve([*ids.values()], fields)
    found = {pid: payloads[id_] for pid, id_ in ids.items() if id_ in payloads}
    for pid, payload in found.items():
        check_pid(pid, payload)
    return found


def _scanned(collection: Collection) -> Iterator[Passage]:
    for id_, payload in collection.scan(HIT_FIELDS):
        yield passage_of(id_, payload)


class _Told:
    """Passages, counted and told of on their way."""

    def __init__(
        self,
        passages: Iterable[Passage],
        total: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.done = 0
        self._passages = passages
        self._total = total
        self._on_progress = on_progress or (lambda _done, _total: None)

    def __iter__(self) -> Iterator[Passage]:
        for passage in self._passages:
            yield passage
            self.done += 1
            if self.done % _AT_ONCE == 0:
                self._on_progress(self.done, max(self.done, self._total))
        self._on_progress(self.done, self.done)


# ---- files ---------------------------------------------------------------------------------


def _writer(path: Path) -> Callable[[Iterable[Passage], BinaryIO], None]:
    """What writes the form that a name tells.

    Raises:
        UsageError: If it tells none.
        MissingExtraError: If it is Parquet, and that is not installed.
    """
    name = path.name.lower()
    if name.endswith(_PARQUET_SUFFIX):
        check_extra(f"writing Parquet ({path})")
        return write_parquet
    if name.removesuffix(".gz").endswith(_LINES_SUFFIXES):
        return _write_gzip if name.endswith(".gz") else _write_lines
    accepted = [*_LINES_SUFFIXES, *(f"{suffix}.gz" for suffix in _LINES_SUFFIXES), _PARQUET_SUFFIX]
    raise UsageError(
        f"{path} does not say how to write passages: expected a name that ends in "
        f"{', '.join(accepted[:-1])} or {accepted[-1]}"
    )


def _write_gzip(passages: Iterable[Passage], file: BinaryIO) -> None:
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
        _write_lines(passages, packed)


def _write_lines(passages: Iterable[Passage], file: BinaryIO | gzip.GzipFile) -> None:
    longest = 0
    for passage in passages:
        row = {"pid": passage.pid, "text": passage.text, "meta": passage.meta}
        line = json.dumps(row, ensure_ascii=False).encode()
        longest = max(longest, len(line))
        file.write(line + b"\n")
    if longest > MAX_LINE_BYTES:
        _log.warning(
            "the longest line has %s bytes: to ingest it, set MSMARCO_QDRANT_MAX_LINE_BYTES to as "
            "much, or pass Corpus(max_line_bytes=...)",
            f"{longest:,}",
        )
