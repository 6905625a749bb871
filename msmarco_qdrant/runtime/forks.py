"""Libraries that start threads, in forked processes.

A forked child has the memory of its parent, but only the thread that forked. A library whose
threads are missing waits for them for ever, and cannot be asked whether it would. So its first use
is noted, and a child of such a process must not use it.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable

FORK_ADVICE = (
    "start this process by spawn or forkserver (multiprocessing.get_context('spawn')) instead of "
    "fork"
)
"""The next step of an error about a forked process."""


class ThreadedLibrary:
    """Notes the first use of a library that starts threads.

    Attributes:
        is_lost: True in a forked child whose parent used the library: its threads are missing.
    """

    def __init__(self) -> None:
        self.is_lost = False
        self._used = False
        self._owners: weakref.WeakSet[object] = weakref.WeakSet()
        call_in_forked_child(self._forget_threads)

    def note_use(self, owner: object | None = None) -> None:
        """Note, before the library starts a thread, that it will.

        Args:
            owner: An object whose destructor waits for threads; a forked child never destroys it.
        """
        self._used = True
        if owner is not None:
            self._owners.add(owner)

    def _forget_threads(self) -> None:
        self.is_lost = self.is_lost or self._used
        for owner in self._owners:
            keep_for_ever(owner)


def call_in_forked_child(function: Callable[[], object]) -> None:
    """Call a function in each forked child, before its other code; never where nothing forks."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=function)


def keep_for_ever(inherited: object) -> None:
    """Never destroy an object, not even when the interpreter ends.

    In a forked child, the destructor of an object of the parent may wait for threads that do not
    exist, or write into the parent's files.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
