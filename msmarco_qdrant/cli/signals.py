"""Interruptions: an orderly exit on SIGTERM, and how to resume."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from msmarco_qdrant.cli.output import echo

_TERMINATED = 128 + signal.SIGTERM


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM, which stops containers, into `SystemExit`, so that the lock is released."""
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def advise_resume(kept: str) -> Iterator[None]:
    """Advise how to resume a command that is interrupted.

    Args:
        kept: The work that is not lost, such as "Scores are kept".
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # `SystemExit` is from SIGTERM
        echo("", f"{kept}; run the same command again to resume.", err=True)
        raise
