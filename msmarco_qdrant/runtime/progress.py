"""Progress of a long operation: a bar in a terminal or a notebook, plain else lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, ParamSpec, Protocol, TextIO

_LINE_EVERY_S = 10.0
_TIME_LEFT_AFTER_S = 5.0  # an estimate from less work is wrong by several times

_P = ParamSpec("_P")


class ProgressDisplay:
    """Shows progress on a stream.

    Call `show` with what is done, `announce` before work of another kind, and `close` at the end.

    Args:
        unit: The name of the items.
        stream: Standard error by default.
        line_every_s: Least interval between two lines if it is not a terminal, in seconds.
        clock: Returns seconds.
    """

    def __init__(
        self,
        unit: str = "passages",
        stream: TextIO | None = None,
        *,
        line_every_s: float = _LINE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unit = unit
        self._stream = stream
        self._bar: Any = None
        self._clock = clock
        self._line_every_s = line_every_s
        self._started = clock()
        self._next_line = self._started + line_every_s

    def show(self, done: int, fraction: float | None, elapsed_s: float | None = None) -> None:
        """Show the number of items done, and their share if the total is known.

        `elapsed_s` is how long they took: by default the time since this began or `announce` was
        called.
        """
        if elapsed_s is not None:
            self._started = self._clock() - elapsed_s
        if self._out.isatty() or self._is_in_notebook():
            self._draw(done, fraction)
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + self._line_every_s
            self._print(self._line(done, fraction))

    def show_of(self, done: int, total: int) -> None:
        """Show the number of items done out of `total`; 0 for an unknown total."""
        self.show(done, done / total if total else None)

    def announce(self, line: str) -> None:
        """Print a line without control characters; rates are those of the work after it."""
        self.close()
        self._print(line)
        self._restart()

    def close(self) -> None:
        """Close the bar; a second call does nothing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def _out(self) -> TextIO:
        return self._stream or sys.stderr

    def _restart(self) -> None:
        self._started = self._clock()
        self._next_line = self._started + self._line_every_s

    def _is_in_notebook(self) -> bool:
        return self._stream is None and "ipykernel" in sys.modules

    def _draw(self, done: int, fraction: float | None) -> None:
        if self._bar is None:
            from tqdm.auto import tqdm

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
        parts = [f"{done:,} {self._unit}", self._rate(done), *share]
        if fraction and elapsed >= _TIME_LEFT_AFTER_S:
            left = elapsed * (1 - fraction) / fraction
            parts.append(f"{left:,.0f} s left")
        return parts

    def _rate(self, done: int) -> str:
        elapsed = self._clock() - self._started
        return f"{done / elapsed:,.0f} {self._unit}/s" if elapsed else "starting"

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class _Closable(Protocol):
    def close(self) -> None: ...


def with_display(
    stack: ExitStack,
    display: _Closable,
    show: Callable[_P, None],
    on_progress: Callable[_P, object] | None,
) -> Callable[_P, None]:
    """Return a callback that also shows the progress.

    Args:
        stack: Closes the display.
        display: The display.
        show: Its method or call for this kind of progress.
        on_progress: The caller's own callback, called last.
    """
    stack.enter_context(closing(display))

    def call(*args: _P.args, **options: _P.kwargs) -> None:
        show(*args, **options)
        if on_progress is not None:
            on_progress(*args, **options)

    return call


class Display(Protocol[_P]):
    """A display that is called with each progress of one kind."""

    def __call__(self, *args: _P.args, **options: _P.kwargs) -> None:
        """Show the progress."""

    def close(self) -> None:
        """Close the bar."""


def add_display(
    stack: ExitStack, display: Display[_P] | None, on_progress: Callable[_P, None] | None
) -> Callable[_P, None] | None:
    """Return a callback that also shows the progress; without a display, the caller's own.

    Args:
        stack: Closes the display.
        display: The display.
        on_progress: The caller's own callback, called last.
    """
    if display is None:
        return on_progress
    return with_display(stack, display, display, on_progress)


@contextmanager
def counted_progress(
    on_progress: Callable[[int, int], None] | None, *, progress: bool, unit: str = "passages"
) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for the items done and their total, which may be unknown.

    Args:
        on_progress: The caller's own callback.
        progress: Also show the progress.
        unit: The name of the items.
    """
    with ExitStack() as stack:
        if progress:
            display = ProgressDisplay(unit)
            yield with_display(stack, display, display.show_of, on_progress)
        else:
            yield on_progress or (lambda _done, _total: None)
