"""Forked children for tests: each ends in time, by itself or by a signal."""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable

LIMIT_S = 120.0
"""Generous: nothing takes long, but a machine may be busy."""


def fork(function: Callable[[], object], *, leaves: bool = False) -> Callable[[], str]:
    """Call a function in a forked child.

    Args:
        function: Its result is sent as text; an exception as `NAME: message`.
        leaves: True to end as a script does, with every destructor; only for programs, as
            `SystemExit` is raised here in the child.

    Returns:
        A function that waits for the result. It fails if the child hangs, which it then kills.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while other threads
        child = os.fork()
    if child == 0:
        _run(function, write)
        if leaves:
            raise SystemExit(0)
        os._exit(0)
    os.close(write)
    ends = time.monotonic() + LIMIT_S

    def result() -> str:
        with os.fdopen(read, "rb") as pipe:
            text = b""
            while select.select([pipe], [], [], max(0.0, ends - time.monotonic()))[0]:
                if not (part := os.read(pipe.fileno(), 65536)):
                    break
                text += part
            else:
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if status:
            raise AssertionError(f"the child hung or failed after {text!r}: status {status}")
        return text.decode()

    return result


def exit_status(function: Callable[[], object]) -> int:
    """Call a function in a forked child; return its status, or -N of the signal N that ended it.

    The status is 0 if the function returned, and 1 after an error, which is printed.

    A program that imports the libraries, uses none of them, and forks for each kill saves the
    seconds of processor time that a process of its own would take to import them.
    """
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        function()
        status = 0
    except BaseException:  # noqa: BLE001  # the child must not go on as the program
        traceback.print_exc()
    finally:
        os._exit(status)


def in_child(function: Callable[[], object]) -> str:
    """Call a function in a forked child, and wait for its result; see `fork`."""
    return fork(function)()


def _run(function: Callable[[], object], write: int) -> None:
    try:
        text = str(function())
    except BaseException as exc:  # noqa: BLE001  # the parent compares it
        text = f"{type(exc).__name__}: {exc}"
    with os.fdopen(write, "w") as pipe:
        pipe.write(text)
