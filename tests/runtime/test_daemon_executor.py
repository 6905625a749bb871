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
    finish_before_exit,
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


def test_a_call_in_a_daemon_thread_gets_a_thread_that_python_waits_for() -> None:
    """One in any other thread stays in it."""
    current = finish_before_exit(threading.current_thread)
    assert threading.current_thread() is current()
    found = call_in_daemon_thread(current, "loading").result(60)
    assert "loading_0" == found.name


@pytest.mark.parametrize(
    "attempt", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 10))]
)
def test_the_interpreter_does_not_end_during_a_call(attempt: int) -> None:  # noqa: ARG001
    """Torch takes Python's lock after each product: after the end, that aborts the process."""
    program = (
        "import threading, torch\n"
        "from msmarco_qdrant.runtime.daemon_executor import *\n"
        "matrix, started = torch.ones(300, 300), threading.Event()\n"
        "@finish_before_exit\n"
        "def multiply():\n"
        "    started.set()\n"
        "    for _ in range(300):\n"
        "        torch.mm(matrix, matrix)\n"
        "    print('done')\n"
        "call_in_daemon_thread(multiply, 'multiply')\n"
        "started.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (0, b"done\n", b"") == (done.returncode, done.stdout, done.stderr)
