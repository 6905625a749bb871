"""Opening a store by its DSN; the adapter of its engine is imported only then."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, closing, nullcontext
from os import PathLike
from pathlib import Path

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.errors import StoreNotFoundError, UsageError
from msmarco_qdrant.stores.base import Store
from msmarco_qdrant.stores.connection import (
    DEFAULT_CONNECTION,
    Connection,
    hide_secret,
    is_url,
    parse_address,
)
from msmarco_qdrant.stores.protocols import Collection

_IN_MEMORY = ":memory:"
_CREATE = (
    "create the store with open_store(':memory:', create=True), and pass the store instead of "
    "its name"
)

# host:port, or a scheme with too few slashes: a mistyped URL, not the name of a directory.
_NEARLY_URL = re.compile(r"[A-Za-z0-9.-]+:[0-9]+/?|(https?|grpcs?):(?!//).*")


@suggest_keywords
def open_store(
    dsn: str | PathLike[str], *, create: bool = False, connection: Connection = DEFAULT_CONNECTION
) -> Store:
    """Open a store.

    Opening a directory again in the same process returns another handle on the same engine; the
    last handle to be closed closes it.

    Args:
        dsn: A directory for Qdrant Edge, the engine inside this process;
            `http(s)://host[:port][/path]`, the URL of REST, or `grpc(s)://host[:port]` for a Qdrant
            server or Qdrant Cloud; `:memory:` for a new, empty store that ends with this handle,
            searches exactly, and is for tests.
        create: Create a missing directory, or the store in memory. Without it, nothing is
            created. A server must be running.
        connection: The API key, transport, port, time limits and request sizes of a server.

    Raises:
        StoreNotFoundError: If the store is missing and `create` is off.
        StoreInUseError: If another process uses the directory.
        StoreUnavailableError: If the directory cannot be created or written, or no server answers.
        StoreAccessError: If the server does not accept the API key.
        StoreCorruptError: If the directory holds other files, or a store of another version.
        StoreError: If the server is older than Qdrant 1.16, or if another server answers at the
            gRPC port that is required.
        UnsupportedError: For a directory on a system without POSIX file locks (Windows).
        UsageError: For an invalid URL, or one with a secret; or for another type of `connection`.
    """
    name = _check_dsn(dsn)
    _check_connection(connection)
    if is_url(name):
        from msmarco_qdrant.stores.server.store import ServerStore

        return ServerStore.connect(name, connection)
    if name == _IN_MEMORY:
        if not create:
            raise StoreNotFoundError(f"':memory:' is a new, empty store each time: {_CREATE}")
        from msmarco_qdrant.stores.server.store import ServerStore

        return ServerStore.in_memory()
    from msmarco_qdrant.stores.edge.store import EdgeStore

    return EdgeStore.open(name, create=create)


def open_shared(folder: Path) -> Collection:
    """Open a folder of `Store.share_files` in another process, to search it.

    Raises:
        StoreUnavailableError: If disk space or another resource is missing.
        StoreError: If the folder is missing or damaged.
    """
    from msmarco_qdrant.stores.edge.collection import EdgeCollection
    from msmarco_qdrant.stores.edge.shared_files import link_shared

    return EdgeCollection(link_shared(folder), -1)  # no lock: it builds no index


def use_store(
    store: Store | str | PathLike[str],
    connection: Connection = DEFAULT_CONNECTION,
    *,
    create: bool = False,
) -> AbstractContextManager[Store]:
    """Open a path or URL and close it at the end; leave an open store open. See `open_store`.

    Raises:
        UsageError: If `store` is neither.
    """
    if isinstance(store, str | PathLike):
        return closing(open_store(store, create=create, connection=connection))
    if not callable(getattr(store, "admin_collection", None)):  # a wrapped store has its methods
        raise UsageError(
            f"store must be an open store, a path or a URL, got "
            f"{with_article(type(store).__name__)}"
        )
    return nullcontext(store)


def use_foreign_store(
    store: Store | str | PathLike[str], connection: Connection = DEFAULT_CONNECTION
) -> AbstractContextManager[Store]:
    """Open a URL or a folder of qdrant-client's local mode, and close it at the end.

    An open store stays open.

    Raises:
        StoreNotFoundError: If the folder does not exist.
        StoreCorruptError: If it is not a folder of the local mode.
        StoreInUseError: If another client has opened it.
        StoreError: As `open_store`.
        UsageError: If `store` is neither.
    """
    if not isinstance(store, str | PathLike) or is_url(name := _check_dsn(store)):
        return use_store(store, connection)
    from msmarco_qdrant.stores.server.store import ServerStore

    return closing(ServerStore.local_folder(name))


def check_creatable(dsn: str | PathLike[str], connection: Connection = DEFAULT_CONNECTION) -> None:
    """Check, without creating anything, that `open_store(dsn, create=True)` can work.

    Raises:
        StoreUnavailableError: If the directory cannot be created or written.
        StoreCorruptError: If the directory holds other files.
        UnsupportedError: For a directory on a system without POSIX file locks (Windows).
        UsageError: For an invalid URL, or for a store in memory, which ends with its handle.
    """
    name = _check_dsn(dsn)
    _check_connection(connection)
    if is_url(name):
        parse_address(name, connection)
    elif name == _IN_MEMORY:
        raise UsageError(f"':memory:' ends with its handle: {_CREATE}")
    else:
        from msmarco_qdrant.stores.edge.directory import check_directory

        check_directory(Path(name).expanduser())


def _check_dsn(dsn: str | PathLike[str]) -> str:
    name = str(dsn)
    if not name or "\0" in name:
        raise UsageError(f"a store must be a directory or a URL, got {hide_secret(name)!r}")
    if _NEARLY_URL.fullmatch(name):
        raise UsageError(
            "the store looks like a server's address without its scheme: pass http://host:port "
            "(or https, grpc, grpcs), or ./NAME for a directory of that name"
        )
    return name


def _check_connection(connection: object) -> None:
    """Refuse another type, without its value: that may have the API key."""
    if not isinstance(connection, Connection):
        raise UsageError(
            "connection must be a Connection, such as Connection(api_key=KEY), got "
            f"{with_article(type(connection).__name__)}"
        )
