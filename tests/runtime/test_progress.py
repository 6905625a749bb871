"""The display of progress: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import io

import pytest

from msmarco_qdrant.runtime.progress import ProgressDisplay


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_a_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    """Redrawn in place, with share, passages, rate and time left; closing twice is harmless."""
    stream, times = Terminal(), iter(range(0, 1000, 6))
    display = ProgressDisplay(stream=stream, clock=lambda: float(next(times)))
    for done, fraction in ((0, 0.0), (500, 0.5), (1000, 1.0)):
        display.show(done, fraction)
    display.close()
    display.close()
    last = stream.getvalue().replace("\n", "").split("\r")[-1]
    assert last.startswith("100%|")
    assert "1,000 passages" in last
    assert "passages/s" in last
    assert last.rstrip().endswith(", 0 s left")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_time_left_needs_five_seconds(stream: io.StringIO) -> None:
    """An estimate of less work is wrong by several times."""
    times = iter([0.0, *[4.9] * 4, *[5.0] * 4])
    display = ProgressDisplay(stream=stream, line_every_s=0.0, clock=lambda: next(times))
    while "left" not in stream.getvalue():
        display.show(500, 0.5)
    display.close()
    assert "500 passages, 100 passages/s" in stream.getvalue()
    assert "5 s left" in stream.getvalue()


def test_an_unknown_total_gives_counts_only() -> None:
    """Standard input has an unknown size."""
    stream = Terminal()
    display = ProgressDisplay("queries", stream)
    display.show_of(500, 0)
    display.close()
    assert "500 queries" in stream.getvalue()
    assert "left" not in stream.getvalue()


def test_a_file_gets_plain_lines() -> None:
    """A line at a time, no control characters, at most one every interval."""
    stream = io.StringIO()
    times = iter(range(0, 1000, 6))
    display = ProgressDisplay(stream=stream, line_every_s=0.0, clock=lambda: float(next(times)))
    display.show(250, 0.25)
    display.show(1000, None)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("250 passages, ")
    assert first.split(", ")[2] == "25%"
    assert first.endswith(" s left")
    assert second.startswith("1,000 passages, ")
    quiet = io.StringIO()
    ProgressDisplay(stream=quiet, line_every_s=1e9).show(1, 0.1)
    ProgressDisplay(stream=quiet, line_every_s=1e9).show_of(0, 0)
    assert quiet.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_an_announcement_is_a_line_and_restarts_the_rate(stream: io.StringIO) -> None:
    """Also after a bar; the work after it has a rate of its own."""
    now = 0.0
    display = ProgressDisplay(stream=stream, line_every_s=0.0, clock=lambda: now)
    display.show(1000, 0.5)
    now = 100.0
    display.announce("building the index")
    assert stream.getvalue().endswith("building the index\n")
    now = 102.0
    display.show(100, 0.5)
    display.close()
    assert "100 passages, 50 passages/s" in stream.getvalue()


def test_a_notebook_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its standard error is not a terminal."""
    monkeypatch.setitem(__import__("sys").modules, "ipykernel", io)
    display = ProgressDisplay()
    display.show(500, 0.5)
    display.close()
    assert "50%|" in capsys.readouterr().err
