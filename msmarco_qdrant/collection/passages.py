"""Read, count, delete and export passages."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import BinaryIO, TypeAlias

from msmarco_qdrant.collection.delete import delete_matching, delete_pids
from msmarco_qdrant.collection.facets import check_exact
from msmarco_qdrant.collection.filter_notes import log_filter_notes
from msmarco_qdrant.collection.tenants import is_tenants, tenant_filter
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter, check_filter
from msmarco_qdrant.runtime.atomic_file import atomic_write
from msmarco_qdrant.runtime.progress import counted_progress
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES
from msmarco_qdrant.sources.parquet import check_extra, write_parquet
from msmarco_qdrant.stores import (
    DEFAULT_CONNECTION,
    AliasedCollection,
    Collection,
    Connection,
    Store,
    use_store,
)
from msmarco_qdrant.stores.filters import combine, has_condition, to_qdrant
from msmarco_qdrant.stores.foreign import ForeignPoints
from msmarco_qdrant.stores.payload import HIT_FIELDS, point_id

_log = logging.getLogger(__name__)

_BATCH = 1000
_JSONL_SUFFIXES = (".jsonl", ".ndjson")
_PARQUET_SUFFIX = ".parquet"

_StoreOrPath: TypeAlias = Store | str | PathLike[str]


@suggest_keywords
def get_passages(
    store: _StoreOrPath,
    pids: Iterable[str],
    *,
    tenant: str | None = None,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
) -> dict[str, Passage]:
    """Read passages by their pids.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        pids: The pids of the passages to read.
        tenant: Only this tenant's; see `set_tenant_field`.
        collection: The collection's name.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The passages that exist, by pid, in the order of `pids`. A point that is not a passage is
        left out, with a warning.

    Raises:
        UsageError: If a pid is not a non-empty string.
        StoreError: If the store cannot be opened or read, or has no such collection.
    """
    found: dict[str, Passage] = {}
    with use_store(store, connection) as opened:
        metadata = opened.metadata(collection)  # raises for another program's collection
        source, foreign = opened.collection(collection), ForeignPoints(collection, opened.dsn)
        tenant_filter(metadata, collection, tenant, opened.dsn)
        for batch in in_batches(_check_pids(pids), _BATCH):
            ids = {pid: point_id(pid) for pid in batch}
            payloads = source.retrieve([*ids.values()], HIT_FIELDS)
            for pid, id_ in ids.items():
                passage = foreign.passage(id_, payloads[id_]) if id_ in payloads else None
                if passage is not None and is_tenants(metadata, passage.meta, tenant):
                    found[pid] = passage
    return found


@suggest_keywords
def list_passages(
    store: _StoreOrPath,
    *,
    limit: int = 10,
    meta_filter: SearchFilter | None = None,
    tenant: str | None = None,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
) -> list[Passage]:
    """Read some passages, without a query.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        limit: Maximum number of passages, 1 or more.
        meta_filter: Only passages that match, as in `SearchClient.search`.
        tenant: Only this tenant's; see `set_tenant_field`.
        collection: The collection's name.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        Passages in the order of their point ids, which is the same each time. Points that are not
        passages are left out, with a warning.

    Raises:
        UsageError: For an invalid limit or filter.
        StoreError: If the store cannot be opened or read, or has no such collection.
    """
    if not isinstance(limit, Integral) or isinstance(limit, bool) or limit < 1:
        raise UsageError(f"limit must be 1 or more, got {limit!r}")
    check_filter(meta_filter)
    with use_store(store, connection) as opened:
        source, scope = _scoped(opened, collection, tenant)
        foreign = ForeignPoints(collection, opened.dsn)
        found = source.scan(HIT_FIELDS, meta_filter=combine(scope, meta_filter))
        passages = (foreign.passage(id_, payload) for id_, payload in found)
        listed = [*islice((one for one in passages if one is not None), limit)]
        if meta_filter is not None:
            log_filter_notes(source, meta_filter, has_match=bool(listed), scope=scope)
        return listed


@suggest_keywords
def count_passages(
    store: _StoreOrPath,
    *,
    meta_filter: SearchFilter | None = None,
    tenant: str | None = None,
    exact: bool = True,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Count passages.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        meta_filter: Only passages that match, as in `SearchClient.search`.
        tenant: Only this tenant's; see `set_tenant_field`.
        exact: False to estimate the number by the payload indexes of the filter's fields, which is
            faster in a large collection. A server whose strict mode forbids exact counts estimates
            it always, with a warning.
        collection: The collection's name.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Raises:
        UsageError: For an invalid filter.
        StoreError: If the store cannot be opened or read, or has no such collection.
    """
    check_count(meta_filter, exact=exact)
    with use_store(store, connection) as opened:
        source, scope = _scoped(opened, collection, tenant)
        return read_count(source, meta_filter, exact=exact, scope=scope)


def check_count(meta_filter: SearchFilter | None, *, exact: bool) -> None:
    """Check the arguments of a count.

    Raises:
        UsageError: For an invalid one.
    """
    check_filter(meta_filter)
    check_exact(exact)


def read_count(
    source: Collection | AliasedCollection,
    meta_filter: SearchFilter | None,
    *,
    exact: bool,
    scope: SearchFilter | None = None,
) -> int:
    """Count the passages of an open collection, of those in a scope; see `count_passages`."""
    count = source.count(combine(scope, meta_filter), exact=exact)
    if meta_filter is not None:
        log_filter_notes(source, meta_filter, has_match=count > 0, scope=scope)
    return count


@suggest_keywords
def delete_passages(
    store: _StoreOrPath,
    pids: Iterable[str] | None = None,
    *,
    meta_filter: SearchFilter | None = None,
    tenant: str | None = None,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Delete passages by their pids or by a filter, durably. Repeating it is harmless.

    During a re-embedding they are deleted from the old and the new physical collection.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        pids: The pids of the passages to delete, read one batch at a time.
        meta_filter: Instead of `pids`: delete the passages that match, as in `SearchClient.search`;
            points that are not passages stay.
        tenant: Delete only this tenant's passages; None for those of any tenant.
        collection: The collection's name.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The number of passages found and deleted. A passage that another client writes during the
        call stays.

    Raises:
        UsageError: If a pid is not a non-empty string; earlier batches are deleted by then. If
            not one of `pids` and `meta_filter` is passed, or the filter has no condition. If
            passages match only because they lack a field that no passage has, such as a misspelled
            one in `Not`; none is deleted.
        PidCollisionError: If a point holds another pid than its id is made from, or lost its pid
            or `seq`; it stays.
        StoreError: If the store cannot be opened or written, or has no such collection.
    """
    if (pids is None) == (meta_filter is None):
        raise UsageError("pass either pids or meta_filter")
    check_filter(meta_filter)
    if meta_filter is not None and not has_condition(to_qdrant(meta_filter)):
        raise UsageError("meta_filter must have a condition; to delete everything, drop_collection")
    with use_store(store, connection) as opened:
        metadata = opened.metadata(collection)  # raises for another program's collection
        scope = None
        if tenant is not None:
            scope = tenant_filter(metadata, collection, tenant, opened.dsn)
        if meta_filter is not None:
            return delete_matching(opened, collection, meta_filter, scope)
        chosen = _check_pids(() if pids is None else pids)
        if scope is None:
            return delete_pids(opened, collection, chosen)
        return sum(
            delete_pids(
                opened,
                collection,
                get_passages(opened, batch, tenant=tenant, collection=collection),
            )
            for batch in in_batches(chosen, _BATCH)
        )


@suggest_keywords
def export_passages(
    store: _StoreOrPath,
    path: str | PathLike[str] | BinaryIO,
    *,
    collection: str = "msmarco",
    connection: Connection = DEFAULT_CONNECTION,
    on_progress: Callable[[int, int], None] | None = None,
    progress: bool = False,
) -> int:
    """Write every passage of a collection to a file that `ingest_passages` reads back unchanged.

    Points that are not passages are left out, with a warning.

    A row has `pid`, `text` and `meta`; in Parquet, `meta` is JSON text. Memory use does not depend
    on the size of the collection. The file appears under its name only when it is complete.
    Numbers are as the engine returns them: Qdrant's core may change the last digit of floats with
    more than 15 digits.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        path: The file. Its suffix selects the format: `.jsonl` or `.ndjson`, each optionally with
            `.gz`, or `.parquet` (extra `parquet`). Or a binary file object, which gets JSON lines
            and stays open.
        collection: The collection's name.
        connection: The API key, port and time limits of a server, if `store` is a URL.
        on_progress: Called regularly with the passages written and their total.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.

    Returns:
        The number of passages written.

    Raises:
        UsageError: If the suffix is none of these.
        MissingExtraError: If the file is Parquet and the extra `parquet` is not installed.
        OutputError: If the file cannot be written.
        StoreError: If the store cannot be opened or read, or has no such collection.
    """
    write = _select_writer(Path(path)) if isinstance(path, str | PathLike) else _write_lines
    with (
        use_store(store, connection) as opened,
        counted_progress(on_progress, progress=progress) as count,
    ):
        foreign = ForeignPoints(collection, opened.dsn)
        scan = _PassageScan(_own_collection(opened, collection), foreign, count)
        with (
            nullcontext(path)
            if not isinstance(path, str | PathLike)
            else atomic_write(Path(path)) as file
        ):
            write(scan, file)
    return scan.done


def _scoped(store: Store, name: str, tenant: str | None) -> tuple[Collection, SearchFilter | None]:
    """Return a collection that is not another program's, and the filter of the tenant."""
    scope = tenant_filter(store.metadata(name), name, tenant, store.dsn)
    return store.collection(name), scope


def _own_collection(store: Store, name: str) -> Collection:
    """Return a collection after a check that it is not another program's."""
    store.metadata(name)
    return store.collection(name)


def _check_pids(pids: Iterable[str]) -> Iterator[str]:
    if isinstance(pids, str):
        raise UsageError(f"pids must be a list, also for one pid, got the string {pids!r}")
    if not isinstance(pids, Iterable):
        raise UsageError(f"pids must be a list of pids, got {pids!r}")
    for pid in pids:
        if not isinstance(pid, str) or not pid:
            raise UsageError(f"pid must be a non-empty string, got {pid!r}")
        if any("\ud800" <= character <= "\udfff" for character in pid):
            raise UsageError(f"pid must not contain a lone surrogate, got {pid!r}")
        yield pid


class _PassageScan:
    """The passages of a collection, counted while they are read."""

    def __init__(
        self,
        collection: Collection,
        foreign: ForeignPoints,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.done = 0
        self._collection = collection
        self._foreign = foreign
        self._on_progress = on_progress

    def __iter__(self) -> Iterator[Passage]:
        total = self._collection.info(all_replicas=False).points
        for id_, payload in self._collection.scan(HIT_FIELDS):
            passage = self._foreign.passage(id_, payload)
            if passage is None:
                continue
            yield passage
            self.done += 1
            if self.done % _BATCH == 0:
                self._on_progress(self.done, max(self.done, total))
        self._on_progress(self.done, self.done)


def _select_writer(path: Path) -> Callable[[Iterable[Passage], BinaryIO], None]:
    """Select the writer for a file's suffix.

    Raises:
        UsageError: If there is none.
        MissingExtraError: If it is Parquet and the extra is not installed.
    """
    name = path.name.lower()
    if name.endswith(_PARQUET_SUFFIX):
        check_extra(f"writing Parquet ({path})")
        return write_parquet
    if name.removesuffix(".gz").endswith(_JSONL_SUFFIXES):
        return _write_gzip if name.endswith(".gz") else _write_lines
    accepted = [*_JSONL_SUFFIXES, *(f"{suffix}.gz" for suffix in _JSONL_SUFFIXES)]
    raise UsageError(
        f"output file must end in {', '.join(accepted)} or {_PARQUET_SUFFIX}, got {path}"
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
            "the longest line has %s bytes: to ingest this file, set MSMARCO_QDRANT_MAX_LINE_BYTES "
            "or Corpus(max_line_bytes=...) to that",
            f"{longest:,}",
        )
