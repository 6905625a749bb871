"""The progress of an ingest on standard error."""

from __future__ import annotations

import io
from typing import Literal

import pytest

from msmarco_qdrant.cli.progress import INDEX_NOTICE, PRUNE_NOTICE, ProgressDisplay
from msmarco_qdrant.core.reports import IngestProgress, IngestReport

REPORT = IngestReport(read=10, written=10, unchanged=0, rejected=0, encoded=10, seconds=1.0)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def progress(
    done: int, fraction: float | None, stage: Literal["passages", "prune", "index"] = "passages"
) -> IngestProgress:
    """A progress with a fixed report."""
    return IngestProgress(stage, done, fraction, REPORT)


def test_a_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    """Redrawn in place, with share, passages, rate and time left."""
    stream, times = Terminal(), iter(range(0, 1000, 6))
    display = ProgressDisplay(stream, clock=lambda: float(next(times)))
    for done, fraction in ((0, 0.0), (500, 0.5), (1000, 1.0)):
        display(progress(done, fraction))
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
    display = ProgressDisplay(stream, line_every_s=0.0, clock=lambda: next(times))
    while "left" not in stream.getvalue():
        display(progress(500, 0.5))
    display.close()
    assert "500 passages, 100 passages/s" in stream.getvalue()
    assert "5 s left" in stream.getvalue()


def test_a_source_of_unknown_size_gets_counts_only() -> None:
    """Standard input has an unknown size."""
    stream = Terminal()
    display = ProgressDisplay(stream)
    display(progress(500, None))
    display.close()
    assert "500 passages" in stream.getvalue()
    assert "left" not in stream.getvalue()


def test_a_file_gets_plain_lines() -> None:
    """A line at a time, no control characters, at most one every interval."""
    stream = io.StringIO()
    times = iter(range(0, 1000, 6))
    display = ProgressDisplay(stream, line_every_s=0.0, clock=lambda: float(next(times)))
    display(progress(250, 0.25))
    display(progress(1000, None))
    first, second = stream.getvalue().splitlines()
    assert first.startswith("250 passages, ")
    assert first.split(", ")[2] == "25%"
    assert first.endswith(" s left")
    assert second.startswith("1,000 passages, ")
    quiet = io.StringIO()
    ProgressDisplay(quiet, line_every_s=1e9)(progress(1, 0.1))
    ProgressDisplay(quiet, line_every_s=1e9).show_of(0, 0)
    assert quiet.getvalue() == ""


@pytest.mark.parametrize(("stage", "notice"), [("prune", PRUNE_NOTICE), ("index", INDEX_NOTICE)])
def test_other_stages_are_announced_beforehand(
    stage: Literal["prune", "index"], notice: str
) -> None:
    """On a line of their own on each stream; the last progress is an attribute."""
    for stream in (io.StringIO(), Terminal()):
        display = ProgressDisplay(stream)
        display(progress(1000, 1.0))
        display(progress(1000, 1.0, stage))
        assert stream.getvalue().endswith(notice + "\n")
        assert display.last is not None
        assert stage == display.last.stage
