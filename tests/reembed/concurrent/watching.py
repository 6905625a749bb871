"""A store's handle that tells of each call before it is made, whichever engine is behind it.

So a test can let others act between any two calls of a migration, or end it there as `kill -9`
would: if `Killed` comes out of that call and of each one after it, the lock stays, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

from msmarco_qdrant.stores import Store

OnCall = Callable[[str], None]


class Killed(BaseException):
    """Nothing of ours catches it."""


class _Watched:
    """An object each of whose methods tells its name first."""

    def __init__(self, target: Any, on_call: OnCall) -> None:
        self._target = target
        self._on_call = on_call

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._on_call(name)
            return found(*args, **options)

        return call


class _WatchedCollection(_Watched):
    def scan(self, fields: Any) -> Iterator[Any]:
        """Tell of it when the first page is read, which is when the engine is asked."""
        self._on_call("scan")
        yield from self._target.scan(fields)


class _WatchedStore(_Watched):
    """The parts of a store are watched, too; they are named here for `isinstance` to find."""

    @property
    def migration_locks(self) -> Any:
        return _Watched(self._target.migration_locks, self._on_call)

    def collection(self, name: str) -> Any:
        self._on_call("collection")
        return _WatchedCollection(self._target.collection(name), self._on_call)

    def physical_names(self) -> Any:
        self._on_call("physical_names")
        return self._target.physical_names()

    def admin_collection(self, name: str) -> Any:
        self._on_call("admin_collection")
        return _Watched(self._target.admin_collection(name), self._on_call)


def watched(store: Store, on_call: OnCall) -> Store:
    """A handle on the same store; `on_call` is called with each call's name before it is made."""
    return cast(Store, _WatchedStore(store, on_call))


class Script:
    """What happens before which of a handle's calls, counted from 0. Thread-safe.

    Args:
        acts: What is done before a call of that number, in the thread that makes it.
        counted: The names of the calls that count.

    Attributes:
        calls: The names of those so far.
    """

    def __init__(self, acts: Mapping[int, Callable[[], object]], counted: Collection[str]) -> None:
        self.calls: list[str] = []
        self._acts = acts
        self._counted = counted
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        """A call is about to be made."""
        if name not in self._counted:
            return
        with self._lock:
            number = len(self.calls)
            self.calls.append(name)
        if number in self._acts:
            self._acts[number]()


class Actor:
    """Work in a thread of its own, on a handle that stops before each call until it is let on.

    Args:
        store: Where it works.
        work: What it does with the handle that it is given.
        counted: The names of the calls that it stops before.
    """

    def __init__(
        self, store: Store, work: Callable[[Store], object], counted: Collection[str]
    ) -> None:
        self._counted = counted
        self._state = threading.Condition()
        self._allowed: float = 0
        self._made = 0
        self._waits = self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run,
            args=(work, watched(store, self._stop_before)),
            name="actor",
            daemon=True,
        )
        self._thread.start()

    def advance(self, calls: float, timeout_s: float = 60.0) -> None:
        """Let so many calls be made; returns when it stands before the next, or has ended.

        Raises:
            TimeoutError: If it is stuck in a call: somebody else holds what it needs.
        """
        with self._state:
            self._allowed += calls
            self._waits = False
            self._state.notify_all()
            if not self._state.wait_for(lambda: self._waits or self._over, timeout_s):
                raise TimeoutError(f"an actor is stuck after {self._made} calls")

    def finish(self) -> None:
        """Let it come to its end, and raise what it raised."""
        self.advance(float("inf"))
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def made(self) -> int:
        """How many calls it has made."""
        return self._made

    def _run(self, work: Callable[[Store], object], store: Store) -> None:
        try:
            work(store)
        except BaseException as error:  # noqa: BLE001  # `finish` raises it
            self._error = error
        with self._state:
            self._over = True
            self._state.notify_all()

    def _stop_before(self, name: str) -> None:
        if name not in self._counted:
            return
        with self._state:
            while self._made >= self._allowed:
                self._waits = True
                self._state.notify_all()
                self._state.wait()
            self._made += 1
