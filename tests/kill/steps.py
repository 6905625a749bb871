"""Steps of a program that a test kills at one of them: changes in the file system, and more."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

KILLED = 137
"""The status of a process that was ended at a step."""

_CHANGES = frozenset(
    {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "shutil.rmtree"}
)


class Steps:
    """Counts the steps of this process, and ends it without any cleanup at one of them.

    Args:
        folder: Each change in it is a step.
        last: The step at which the process ends; None to count only.
    """

    def __init__(self, folder: Path, last: int | None = None) -> None:
        self._folder = str(folder)
        self._last = last
        self.count = 0

    def watch(self) -> None:
        """Count from now on, until the process ends."""
        sys.addaudithook(self._see)

    def step(self) -> None:
        """Count one more."""
        self.count += 1
        if self.count == self._last:
            os._exit(KILLED)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES and str(arguments[0]).startswith(self._folder):
            self.step()
