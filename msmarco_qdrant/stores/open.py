"""From a DSN to a store."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from msmarco_qdrant.errors import StoreNotFoundError, UsageError
from msmarco_qdrant.stores.base import Store
from msmarco_qdrant.stores.connection import (
    DEFAULT_CONNECTION,
    Connection,
    is_url,
    parse_address,
    without_secret,
)
from msmarco_qdrant.stores.edge.directory import check_place
from msmarco_qdrant.stores.edge.store import EdgeStore
from msmarco_qdrant.stores.server.store import ServerStore

IN_MEMORY = ":memory:"

# host:port, or a scheme with too few slashes: nobody means a directory of that name.
_NEARLY_URL = re.compile(r"[A-Za-z0-9.-]+:[0-9]+/?|(https?|grpcs?):(?!//).*")


def open_store(
    dsn: str | PathLike[str], *, create: bool = False, connection: Connection = DEFAULT_CONNECTION
) -> Store:
    """Open a store.

    Opening a directory again in the same process gives another handle on the same engine; the
    last handle to be closed closes it.

    Args:
        dsn: A directory for Qdrant Edge, the engine inside this process; `http(s)://host` or
            `grpc(s)://host` for a Qdrant server or Qdrant Cloud; `:memory:` for a new, empty store
            that ends with this handle, searches exactly, and is for tests.
        create: Make the directory if there is none, or the store in memory. Without it, nothing is
            ever created. A server is there or not.
        connection: The API key, port, time limits and request sizes of a server.

    Raises:
        StoreNotFoundError: If nothing is stored there and `create` is off.
        StoreInUseError: If another process holds the directory.
        StoreUnavailableError: If the directory cannot be made or written, or no server answers.
        StoreAccessError: If the server does not accept the API key.
        StoreCorruptError: If what lies there is something else, or of another version.
        StoreError: If the server is older than Qdrant 1.16.
        UsageError: For a URL that cannot be a server's, or that holds a secret.
    """
    name = _checked(dsn)
    if is_url(name):
        return ServerStore.connect(name, connection)
    if name == IN_MEMORY:
        if not create:
            raise StoreNotFoundError(
                "a store in memory is empty when it is opened: make one with "
                "open_store(':memory:', create=True), and pass it on instead of its name"
            )
        return ServerStore.in_memory()
    return EdgeStore.open(name, create=create)


def check_creatable(dsn: str | PathLike[str], connection: Connection = DEFAULT_CONNECTION) -> None:
    """Say now, and create nothing, if `open_store(dsn, create=True)` cannot work or makes no sense.

    Raises:
        StoreUnavailableError: If the directory cannot be made or written.
        StoreCorruptError: If something else lies there.
        UsageError: For a URL that cannot be a server's, or for a store in memory, which would be
            gone before anyone else could open it.
    """
    name = _checked(dsn)
    if is_url(name):
        parse_address(name, connection)
    elif name == IN_MEMORY:
        raise UsageError(
            "what goes into ':memory:' is gone at once: make the store with "
            "open_store(':memory:', create=True), and pass it instead of its name"
        )
    else:
        check_place(Path(name).expanduser())


def _checked(dsn: str | PathLike[str]) -> str:
    name = str(dsn)
    if not name or "\0" in name:
        shown = without_secret(name)
        raise UsageError(f"{shown!r} is no place for a store: expected a directory or a URL")
    if _NEARLY_URL.fullmatch(name):
        raise UsageError(
            "the store looks like a server's address without its scheme: expected http://host:port "
            "(or https, grpc, grpcs); a directory of such a name is written ./NAME"
        )
    return name
