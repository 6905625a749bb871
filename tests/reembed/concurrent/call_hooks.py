"""A handle on a store that calls a hook with the name of each call before it is made.

A test can let other clients act between any two calls of a migration. If the hook raises `Killed`
from one call on, the migration ends there as by `kill -9`; even the lock stays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

from msmarco_qdrant.stores import Store

OnCall = Callable[[str], None]


class Killed(BaseException):
    """A simulated kill; no code catches it."""


class _Hooked:
    """An object that calls the hook before each method call."""

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


class _HookedCollection(_Hooked):
    def scan(self, fields: Any, **options: Any) -> Iterator[Any]:
        """Call the hook when the first page is read."""
        self._on_call("scan")
        yield from self._target.scan(fields, **options)


class _HookedStore(_Hooked):
    """A store whose parts are hooked, too."""

    @property
    def migration_locks(self) -> Any:
        return _Hooked(self._target.migration_locks, self._on_call)

    def collection(self, name: str) -> Any:
        self._on_call("collection")
        return _HookedCollection(self._target.collection(name), self._on_call)

    def admin_collection(self, name: str) -> Any:
        self._on_call("admin_collection")
        return _Hooked(self._target.admin_collection(name), self._on_call)


def hooked(store: Store, on_call: OnCall) -> Store:
    """Return a handle on the same store that calls `on_call` with each call's name first."""
    return cast(Store, _HookedStore(store, on_call))


class CallScript:
    """A hook that runs actions before calls of given numbers, from 0. Thread-safe.

    Args:
        acts: The action before the call of each number, run in the calling thread.
        counted: The names of the calls that are counted.

    Attributes:
        calls: The names of the counted calls so far.
    """

    def __init__(self, acts: Mapping[int, Callable[[], object]], counted: Collection[str]) -> None:
        self.calls: list[str] = []
        self._acts = acts
        self._counted = counted
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        """Handle the next call."""
        if name not in self._counted:
            return
        with self._lock:
            number = len(self.calls)
            self.calls.append(name)
        if number in self._acts:
            self._acts[number]()


class SteppedThread:
    """A thread whose handle on a store stops before each counted call until it is advanced.

    Args:
        store: The store.
        work: The function to run with the handle.
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
            args=(work, hooked(store, self._stop_before)),
            name="actor",
            daemon=True,
        )
        self._thread.start()

    def advance(self, calls: float, timeout_s: float = 60.0) -> None:
        """Allow some calls; returns when the thread waits before the next one or has ended.

        Raises:
            TimeoutError: If it is blocked in a call.
        """
        with self._state:
            self._allowed += calls
            self._waits = False
            self._state.notify_all()
            if not self._state.wait_for(lambda: self._waits or self._over, timeout_s):
                raise TimeoutError(f"an actor is stuck after {self._made} calls")

    def finish(self) -> None:
        """Run it to its end, and raise its error."""
        self.advance(float("inf"))
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def made(self) -> int:
        """Number of calls so far."""
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
