"""One call of a shard of Qdrant Edge: locked, with the engine's errors mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.runtime.fair_lock import FairLock
from msmarco_qdrant.stores.error_mapping import map_error

if TYPE_CHECKING:
    import qdrant_edge

_PANIC = "PanicException"  # of Rust: a `BaseException`, which can be imported from nowhere


@contextmanager
def edge_errors(path: Path, action: str) -> Iterator[None]:
    """Map the errors of the engine.

    Args:
        path: The shard's directory.
        action: The work of the block, for messages.
    """
    try:
        yield
    except BaseException as exc:
        _raise_mapped(exc, path, action)
        raise


class LockedShard:
    """Context of one call of a shard. Each search has one: a generator takes three times as long.

    Args:
        path: The shard's directory.
        action: The work of the block, for messages.
        lock: The shard's lock.
        shard: Returns the shard, once it is locked, given the action.
    """

    __slots__ = ("_action", "_lock", "_path", "_shard")

    def __init__(
        self,
        path: Path,
        action: str,
        lock: FairLock,
        shard: Callable[[str], qdrant_edge.EdgeShard],
    ) -> None:
        self._path = path
        self._action = action
        self._lock = lock
        self._shard = shard

    def __enter__(self) -> qdrant_edge.EdgeShard:
        self._lock.__enter__()
        try:
            return self._shard(self._action)
        except BaseException as exc:
            self.__exit__(type(exc), exc, exc.__traceback__)
            raise

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        self._lock.__exit__()
        if exc is not None:
            _raise_mapped(exc, self._path, self._action)


def _raise_mapped(exc: BaseException, path: Path, action: str) -> None:
    """Raise the package's error for one of the engine; return for any other."""
    if isinstance(exc, MsmarcoQdrantError):
        return
    if isinstance(exc, Exception) or type(exc).__name__ == _PANIC:
        raise map_error(exc, action, str(path)) from exc
