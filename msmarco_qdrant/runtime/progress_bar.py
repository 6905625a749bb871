"""A progress bar in a terminal or a notebook."""

from __future__ import annotations

from typing import Any


class ProgressBar:
    """Shows how many items are done; the bar appears at the first call of `show`.

    Args:
        unit: Name of the items.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None

    def show(self, done: int, fraction: float | None, stage: str = "") -> None:
        """Show the number of items done, their share if the total is known, and the stage."""
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(unit=f" {self._unit}", unit_scale=True)
        self._bar.total = round(done / fraction) if fraction else None
        self._bar.n = done
        self._bar.set_description_str(stage, refresh=True)

    def close(self) -> None:
        """Close the bar; a second call does nothing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
