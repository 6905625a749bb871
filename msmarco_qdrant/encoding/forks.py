"""Models in forked processes: refused in a child whose parent has used torch's threads.

OpenMP, which torch computes with, waits in such a child for the threads of its parent, for ever.
Models that this package loads are noted. A parent may also have used torch by itself: then a child
of the child computes something, and is killed if it does not end.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import warnings
from contextlib import suppress

from msmarco_qdrant.errors import EncodingError
from msmarco_qdrant.runtime.forks import FORK_ADVICE, ThreadedLibrary, call_in_forked_child

_PROBE_MS = 5000
_PARALLEL = 2**20
"""Numbers that torch adds up in several threads."""


class _TorchOfParent:
    """Torch in a forked child whose parent has imported it."""

    def __init__(self) -> None:
        self._unknown: set[bool] = set()  # kinds of threads: True for the one that forked
        self._lock = threading.Lock()
        call_in_forked_child(self._inherit)

    def works(self) -> bool:
        """True if torch's threads work in the current thread; asked once per kind of thread."""
        if not self._unknown:
            return True
        kind = threading.current_thread() is threading.main_thread()
        with self._lock:
            if kind in self._unknown:
                if not _computes():
                    return False
                self._unknown.discard(kind)
        return True

    def _inherit(self) -> None:
        self._lock = threading.Lock()
        if "torch" in sys.modules:
            self._unknown = {True, False}


# torch and tokenizers: loading a model starts threads, and so does a forward pass.
_MODELS = ThreadedLibrary()
_TORCH = _TorchOfParent()


def require_own_threads() -> None:
    """Check, before a model is loaded or called, that its library may start threads here.

    Raises:
        EncodingError: In a forked child whose parent has used torch.
    """
    if _MODELS.is_lost or not _TORCH.works():
        raise EncodingError(
            "a model cannot run in a process that was forked after its parent used torch or "
            f"loaded a model: {FORK_ADVICE}, or load models only after forking"
        )
    _MODELS.note_use()


def _computes() -> bool:
    """Add numbers in a child process, and end it; False if they do not come."""
    import torch

    done, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while other threads run
        child = os.fork()
    if child == 0:
        try:
            torch.ones(_PARALLEL).sum()
            os.write(write, b".")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(done, "rb") as result:
        poll = select.poll()
        poll.register(result, select.POLLIN)
        computes = bool(poll.poll(_PROBE_MS)) and result.read() == b"."
    if not computes:
        os.kill(child, signal.SIGKILL)
    with suppress(ChildProcessError):  # a handler of the caller's program may have waited for it
        os.waitpid(child, 0)
    return computes
