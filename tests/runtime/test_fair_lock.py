"""A lock that is held in the order in which it was asked for."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from msmarco_qdrant.runtime.fair_lock import FairLock

WAIT_S = 60.0


def waiting_for(turns: FairLock, count: int) -> None:
    """Return when so many wait."""
    while len(turns._waiting) < count:
        threading.Event().wait(0.001)


def test_who_waits_longest_is_next() -> None:
    """Not who lets go of it and asks again at once."""
    turns, order = FairLock(), list[str]()

    def take(name: str) -> None:
        with turns:
            order.append(name)

    with ThreadPoolExecutor(3) as pool:
        asked: list[Future[None]] = []
        with turns:
            for number in range(3):
                asked.append(pool.submit(take, str(number)))
                waiting_for(turns, number + 1)
        take("again")
        for future in asked:
            future.result(WAIT_S)
    assert ["0", "1", "2", "again"] == order


def test_one_at_a_time() -> None:
    """Whoever holds it is alone, and it is free after an error."""
    turns, inside = FairLock(), list[int]()
    most = 0

    def count() -> None:
        nonlocal most
        for _ in range(200):
            with turns:
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(count) for _ in range(4)]:
            future.result(WAIT_S)
    assert 1 == most
    with suppress(ZeroDivisionError), turns:
        inside.append(1 // 0)
    with turns:
        inside.append(1)
    assert [1] == inside


def test_a_place_that_is_given_up() -> None:
    """What was interrupted while it waited, or just then, holds nobody up."""
    turns = FairLock()
    with turns:
        turn = threading.Lock()
        turn.acquire()
        turns._waiting.append(turn)
        turns._cancel(turn)
    with turns:
        turn = threading.Lock()
        turn.acquire()
        turns._waiting.append(turn)
    turns._cancel(turn)
    with turns:
        assert turns._held
