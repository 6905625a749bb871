"""How an ingest tells people how far it is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from msmarco_qdrant.records import IngestProgress

_LINE_EVERY_S = 10.0
INDEX_NOTICE = (
    "building the index, which can take minutes; interrupting it is safe, "
    "`msmarco-qdrant optimize` builds it later"
)


class ProgressDisplay:
    """Shows the progress of one ingest on standard error, or on another stream.

    Args:
        stream: Where to; standard error by default.
        line_every_s: Where that is no terminal, a line at most so often, in seconds.

    Call it with each `IngestProgress`; call `close` at the end.

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
        """Show it."""
        self.last = progress
        if progress.stage == "index":
            self.close()
            self._print(INDEX_NOTICE)
        elif self._stream.isatty():
            self._draw(progress)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._line_every_s
            self._print(self._line(progress))

    def close(self) -> None:
        """Take the bar away. Closing twice is no error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, progress: IngestProgress) -> None:
        from tqdm import tqdm

        if self._bar is None:
            known = progress.fraction is not None
            self._bar = tqdm(
                total=1.0 if known else None,
                file=self._stream,
                bar_format=(
                    "{percentage:3.0f}%|{bar}| {desc}, {remaining} left" if known else "{desc}"
                ),
                leave=True,
            )
        if progress.fraction is not None:
            self._bar.n = progress.fraction
        self._bar.set_description_str(f"{progress.done:,} passages, {self._rate(progress)}")

    def _line(self, progress: IngestProgress) -> str:
        elapsed = time.monotonic() - self._started
        parts = [f"{progress.done:,} passages", self._rate(progress)]
        if progress.fraction:
            left = elapsed * (1 - progress.fraction) / progress.fraction
            parts += [f"{progress.fraction:.0%}", f"{left:,.0f} s left"]
        return ", ".join(parts)

    def _rate(self, progress: IngestProgress) -> str:
        elapsed = time.monotonic() - self._started
        return f"{progress.done / elapsed:,.0f} passages/s" if elapsed else "starting"

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)  # the stream is ours to write to
