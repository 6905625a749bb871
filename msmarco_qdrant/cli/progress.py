"""Progress of a long command: a bar on a terminal, plain lines on other streams."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from msmarco_qdrant.core.escape import escape_controls
from msmarco_qdrant.core.reports import IngestProgress

_LINE_EVERY_S = 10.0
_TIME_LEFT_AFTER_S = 5.0  # an estimate from less work is wrong by several times
INDEX_NOTICE = "building the index, which can take minutes"
PRUNE_NOTICE = "searching for passages that are not in the source, to remove them"


class ProgressDisplay:
    """Shows progress on a stream.

    Call it with each `IngestProgress`, or call `show`; call `close` at the end.

    Args:
        stream: Standard error by default.
        index_notice: The line that announces an index build.
        line_every_s: Least interval between two lines if it is not a terminal, in seconds.
        clock: Returns seconds.

    Attributes:
        last: The latest `IngestProgress`, None before the first.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        line_every_s: float = _LINE_EVERY_S,
        index_notice: str = INDEX_NOTICE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.last: IngestProgress | None = None
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._index_notice = index_notice
        self._clock = clock
        self._started = clock()
        self._line_every_s = line_every_s
        self._next_line = self._started + line_every_s

    def __call__(self, progress: IngestProgress) -> None:
        """Show the progress of an ingest."""
        self.last = progress
        if progress.stage == "passages":
            self.show(progress.done, progress.fraction)
        else:
            self.close()
            self._print(PRUNE_NOTICE if progress.stage == "prune" else self._index_notice)

    def show(self, done: int, fraction: float | None) -> None:
        """Show the number of passages done, and their share if the total is known."""
        if self._stream.isatty():
            self._draw(done, fraction)
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + self._line_every_s
            self._print(self._line(done, fraction))

    def show_of(self, done: int, total: int) -> None:
        """Show the number of passages done out of `total`; 0 for an unknown total."""
        self.show(done, done / total if total else None)

    def close(self) -> None:
        """Close the bar; a second call does nothing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, done: int, fraction: float | None) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=None if fraction is None else 1.0,
                file=self._stream,
                bar_format="{desc}" if fraction is None else "{percentage:3.0f}%|{bar}| {desc}",
                leave=True,
            )
        if fraction is not None:
            self._bar.n = fraction
        self._bar.set_description_str(", ".join(self._parts(done, fraction)))

    def _line(self, done: int, fraction: float | None) -> str:
        share = [f"{fraction:.0%}"] if fraction else []
        return ", ".join(self._parts(done, fraction, *share))

    def _parts(self, done: int, fraction: float | None, *share: str) -> list[str]:
        """Return the count, the rate, the share, and after some seconds the time left."""
        elapsed = self._clock() - self._started
        parts = [f"{done:,} passages", self._rate(done), *share]
        if fraction and elapsed >= _TIME_LEFT_AFTER_S:
            left = elapsed * (1 - fraction) / fraction
            parts.append(f"{left:,.0f} s left")
        return parts

    def _rate(self, done: int) -> str:
        elapsed = self._clock() - self._started
        return f"{done / elapsed:,.0f} passages/s" if elapsed else "starting"

    def _print(self, line: str) -> None:
        print(escape_controls(line), file=self._stream, flush=True)
