"""From a DSN to a store."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from msmarco_qdrant.errors import UnsupportedError, UsageError
from msmarco_qdrant.stores.edge import EdgeStore
from msmarco_qdrant.stores.edge_directory import check_place
from msmarco_qdrant.stores.protocols import Store


def open_store(dsn: str | PathLike[str], *, create: bool = False) -> Store:
    """Open a store.

    Opening a directory again in the same process gives another handle on the same engine; the
    last handle to be closed closes it.

    Args:
        dsn: A directory for Qdrant Edge, the engine inside this process.
        create: Make the directory if there is none. Without it, nothing is ever created.

    Raises:
        StoreNotFoundError: If nothing is stored there and `create` is off.
        StoreInUseError: If another process holds the directory.
        StoreUnavailableError: If the directory cannot be made or written.
        StoreCorruptError: If what lies there is something else, or of another version.
        UnsupportedError: For a URL: this version has no engine for it.
    """
    return EdgeStore.open(_directory(dsn), create=create)


def check_creatable(dsn: str | PathLike[str]) -> None:
    """Say now, and create nothing, if `open_store(dsn, create=True)` cannot work.

    Raises:
        StoreUnavailableError: If the directory cannot be made or written.
        StoreCorruptError: If something else lies there.
        UnsupportedError: For a URL.
    """
    check_place(Path(_directory(dsn)).expanduser())


def without_secret(dsn: str) -> str:
    """A DSN as it may be shown: of a URL the scheme alone, as the rest may hold a secret."""
    scheme, is_url, _ = dsn.partition("://")
    return f"{scheme}://..." if is_url else dsn


def _directory(dsn: str | PathLike[str]) -> str:
    name = str(dsn)
    if not name or "\0" in name:
        raise UsageError(f"{name!r} is no place for a store: expected a directory")
    if "://" in name or name == ":memory:":
        raise UnsupportedError(
            f"a store at {without_secret(name)} is not supported: this version keeps passages in a "
            "directory; pass a path, such as ./qdrant_data"
        )
    return name
