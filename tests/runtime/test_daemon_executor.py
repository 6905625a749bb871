"""A thread pool of daemon threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from msmarco_qdrant.runtime.daemon_executor import (
    DaemonExecutor,
    call_in_daemon_thread,
    has_running_calls,
)


def test_c13_calls_run_side_by_side() -> None:
    """Up to the number of threads: each call waits for the other."""
    executor, barrier = DaemonExecutor(2, "test"), threading.Barrier(2)
    with executor:
        futures = [executor.submit(barrier.wait, 60) for _ in range(4)]
        assert [0, 0, 1, 1] == sorted(future.result(60) for future in futures)
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit(int)


def test_c13_error_of_a_call_is_raised() -> None:
    """And the thread goes on."""
    with DaemonExecutor(1, "test") as executor:
        failed, done = executor.submit(int, "x"), executor.submit(int, "1")
        with pytest.raises(ValueError, match="invalid literal"):
            failed.result(60)
        assert 1 == done.result(60)


def test_c13_waiting_calls_are_canceled() -> None:
    """The one in progress ends."""
    started, go_on = threading.Event(), threading.Event()
    executor = DaemonExecutor(1, "test")

    def wait() -> int:
        started.set()
        go_on.wait(60)
        return 1

    running, waiting = executor.submit(wait), executor.submit(int)
    assert started.wait(60)
    executor.shutdown(wait=False, cancel_futures=True)
    go_on.set()

    assert 1 == running.result(60)
    with pytest.raises(CancelledError):
        waiting.result(60)


def test_c13_stuck_thread_does_not_keep_the_process() -> None:
    """Its call never ends; the process does."""
    program = (
        "import threading; from msmarco_qdrant.runtime.daemon_executor import DaemonExecutor\n"
        "started = threading.Event()\n"
        "DaemonExecutor(1, 'x').submit(lambda: (started.set(), threading.Event().wait()))\n"
        "started.wait()"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)

    assert 0 == done.returncode


def test_a_call_has_a_thread_of_its_own() -> None:
    """It ends with the call; an error is that of the future."""
    seen: list[threading.Thread] = []

    def fail() -> None:
        seen.append(threading.current_thread())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        call_in_daemon_thread(fail, "one-call").result(5)
    (thread,) = seen
    assert ("one-call", True) == (thread.name, thread.daemon)
    thread.join(5)
    assert not thread.is_alive()


def test_a_running_call_is_noticed() -> None:
    """From its start to its end."""
    started, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        started.set()
        return go_on.wait(60)

    executor = DaemonExecutor(1, "test")
    waiting = executor.submit(wait)
    assert started.wait(60)
    assert has_running_calls()
    go_on.set()
    assert waiting.result(60)
    executor.shutdown(wait=True)
    assert not any(thread.is_busy for thread in executor._threads)
