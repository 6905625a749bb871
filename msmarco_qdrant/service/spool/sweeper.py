"""Thread that calls a function again and again, such as for files that other processes move in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Self

_log = logging.getLogger(__name__)


class Sweeper:
    """Calls a function in a thread, from `start` to `stop`, with a pause after each call.

    Args:
        sweep: The function; its errors are logged.
        name: The name of the thread.
        interval_s: Seconds of the pause.
    """

    def __init__(self, sweep: Callable[[], object], name: str, *, interval_s: float = 1.0) -> None:
        self._sweep = sweep
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        """True after `stop` was called."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread, which calls at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; return once the current call has ended."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._sweep()
            except Exception:  # noqa: BLE001  # one call must not end the thread
                _log.exception("%s failed unexpectedly; it is repeated", self._thread.name)
            self._stopping.wait(self._interval_s)
