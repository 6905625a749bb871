"""How a long command tells how far it is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from msmarco_qdrant.core.reports import IngestProgress

_LINE_EVERY_S = 10.0
INDEX_NOTICE = (
    "building the index, which can take minutes; interrupting it is safe, "
    "`msmarco-qdrant optimize` builds it later"
)
PRUNE_NOTICE = "looking for passages that the source does not hold, to remove them"


class ProgressDisplay:
    """Shows the progress of one ingest or export on standard error, or on another stream.

    Args:
        stream: Where to; standard error by default.
        line_every_s: Where that is no terminal, a line at most so often, in seconds.

    Call it with each `IngestProgress`, or call `show`; call `close` at the end.

    Attributes:
        last: The latest progress, None before the first.
    """

    def __init__(self, stream: TextIO | None = None, line_every_s: float = _LINE_EVERY_S) -> None:
        self.last: IngestProgress | None = None
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._started = time.monotonic()
        self._line_every_s = line_every_s
        self._next_line = self._started + line_every_s

    def __call__(self, progress: IngestProgress) -> None:
        """Show an ingest's progress."""
        self.last = progress
        if progress.stage == "passages":
            self.show(progress.done, progress.fraction)
        else:
            self.close()
            self._print(PRUNE_NOTICE if progress.stage == "prune" else INDEX_NOTICE)

    def show(self, done: int, fraction: float | None) -> None:
        """Show how many passages are through, and what share of all, if that is known."""
        if self._stream.isatty():
            self._draw(done, fraction)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._line_every_s
            self._print(self._line(done, fraction))

    def close(self) -> None:
        """Take the bar away. Closing twice is no error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, done: int, fraction: float | None) -> None:
        from tqdm import tqdm

        if self._bar is None:
            known = fraction is not None
            self._bar = tqdm(
                total=1.0 if known else None,
                file=self._stream,
                bar_format=(
                    "{percentage:3.0f}%|{bar}| {desc}, {remaining} left" if known else "{desc}"
                ),
                leave=True,
            )
        if fraction is not None:
            self._bar.n = fraction
        self._bar.set_description_str(f"{done:,} passages, {self._rate(done)}")

    def _line(self, done: int, fraction: float | None) -> str:
        elapsed = time.monotonic() - self._started
        parts = [f"{done:,} passages", self._rate(done)]
        if fraction:
            left = elapsed * (1 - fraction) / fraction
            parts += [f"{fraction:.0%}", f"{left:,.0f} s left"]
        return ", ".join(parts)

    def _rate(self, done: int) -> str:
        elapsed = time.monotonic() - self._started
        return f"{done / elapsed:,.0f} passages/s" if elapsed else "starting"

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)  # the stream is ours to write to
