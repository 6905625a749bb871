"""A lock that threads acquire in the order of their requests."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from msmarco_qdrant.runtime.fair_lock import FairLock

WAIT_S = 60.0


def waiting_for(lock: FairLock, count: int) -> None:
    """Return when so many threads wait."""
    while len(lock._waiting) < count:
        threading.Event().wait(0.001)


def test_threads_get_the_lock_in_order() -> None:
    """The thread that releases the lock and requests it again comes last."""
    lock, order = FairLock(), list[str]()

    def take(name: str) -> None:
        with lock:
            order.append(name)

    with ThreadPoolExecutor(3) as pool:
        asked: list[Future[None]] = []
        with lock:
            for number in range(3):
                asked.append(pool.submit(take, str(number)))
                waiting_for(lock, number + 1)
        take("again")
        for future in asked:
            future.result(WAIT_S)
    assert ["0", "1", "2", "again"] == order


def test_one_thread_holds_the_lock() -> None:
    """One thread holds the lock, and an error releases it."""
    lock, inside = FairLock(), list[int]()
    most = 0

    def count() -> None:
        nonlocal most
        for _ in range(200):
            with lock:
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(count) for _ in range(4)]:
            future.result(WAIT_S)
    assert 1 == most
    with suppress(ZeroDivisionError), lock:
        inside.append(1 // 0)
    with lock:
        inside.append(1)
    assert [1] == inside


def test_interrupted_waits() -> None:
    """An interrupt while a thread waits, or as it gets the lock, blocks no other thread."""
    lock = FairLock()

    def wait() -> threading.Lock:
        ticket = threading.Lock()
        ticket.acquire()
        lock._waiting.append(ticket)
        return ticket

    with lock:
        lock._cancel(wait())
    with lock:
        ticket = wait()
    lock._cancel(ticket)
    with lock:
        assert lock._held
