"""The finished steps of an improvement, on disk: a killed run goes on after the last."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.json_value import from_json_value, to_json_value
from msmarco_qdrant.train.improve_records import ImproveStep
from msmarco_qdrant.train.out_folder import OutFolder

Work = Callable[[], Mapping[str, Any]]
"""Does a step, or the rest of it, and returns its figures."""


class StepLog:
    """Runs each step once, and keeps its figures.

    A step whose note is on disk is not run again. A step without a note may have been killed at
    any moment: it must resume, and give the same result.

    Args:
        folder: The folder of the improvement.
        on_step: Called with each step when it is finished, also if an earlier run finished it.
        announce: Called with a line before each step that is run.
    """

    def __init__(
        self,
        folder: OutFolder,
        on_step: Callable[[ImproveStep], None],
        announce: Callable[[str], None],
    ) -> None:
        self.steps: list[ImproveStep] = []
        self._folder = folder
        self._on_step = on_step
        self._announce = announce

    def path(self, number: int, name: str) -> Path:
        """Return the folder of a step."""
        return self._folder.path / _place(number, name)

    def run(
        self, number: int, name: str, work: Work, *, folder: str, command: str = ""
    ) -> ImproveStep:
        """Return the step of a round; run it if it is not finished.

        Args:
            number: The round; 0 before the first.
            name: The step's name.
            work: Does it, or the rest of it.
            folder: The name of the folder that it fills.
            command: A command that does the same.
        """
        note = f"{_place(number, name)}.json"
        if (stored := self._folder.read_json(note)) is not None:
            step = from_json_value(ImproveStep, stored)
        else:
            path = self.path(number, folder)
            is_resumed = path.exists()
            path.parent.mkdir(exist_ok=True)
            self._announce(f"round {number}: {name}" if number else name)
            started = time.perf_counter()
            figures = dict(work())
            seconds = round(time.perf_counter() - started, 3)
            step = ImproveStep(number, name, command, seconds, is_resumed, figures)
            self._folder.write_json(note, to_json_value(step))
        self.steps.append(step)
        self._on_step(step)
        return step


def figures_of(report: Any) -> Mapping[str, Any]:
    """Return the numbers and texts of a report, for the figures of a step."""
    values = report.to_json() if hasattr(report, "to_json") else asdict(report)
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float | str) and name not in ("seconds", "out")
    }


def _place(number: int, name: str) -> str:
    return f"round-{number}/{name}" if number else name
