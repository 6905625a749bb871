"""The progress of an ingest on standard error."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import pytest

from msmarco_qdrant.core.reports import (
    EncodeProgress,
    EncodeReport,
    IngestProgress,
    IngestReport,
)
from msmarco_qdrant.encode.progress import EncodeDisplay
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.progress import INDEX_NOTICE, PRUNE_NOTICE, IngestDisplay
from msmarco_qdrant.testing import HashingEncoder

REPORT = IngestReport(read=10, written=10, unchanged=0, rejected=0, encoded=10, seconds=1.0)
ENCODED = EncodeReport(
    read=1000, encoded=1000, found=0, rejected=0, shards=1, tokens=9000, seconds=1.0
)


@pytest.mark.parametrize(("stage", "notice"), [("prune", PRUNE_NOTICE), ("index", INDEX_NOTICE)])
def test_other_stages_are_announced_beforehand(
    stage: Literal["prune", "index"], notice: str
) -> None:
    """On a line of their own; the last progress is an attribute."""
    stream = io.StringIO()
    display = IngestDisplay(stream=stream, line_every_s=0.0)
    display(IngestProgress("passages", 1000, 1.0, REPORT))
    display(IngestProgress(stage, 1000, 1.0, REPORT))
    passages, announced = stream.getvalue().splitlines()
    assert passages.startswith("1,000 passages")
    assert notice == announced
    assert display.last is not None
    assert stage == display.last.stage


def test_the_rate_leaves_out_the_start_up() -> None:
    """A model that took 25 s to load lowered the rate of all passages, and raised the time left."""
    stream, now = io.StringIO(), [0.0]
    options: dict[str, Any] = {"stream": stream, "line_every_s": 0.0, "clock": lambda: now[0]}
    ingest, encode = IngestDisplay(**options), EncodeDisplay(**options)
    now[0] = 25.0
    ingest(IngestProgress("passages", 1000, 0.5, REPORT))
    encode(EncodeProgress(1000, 0.5, ENCODED))
    assert ["1,000 passages, 1,000 passages/s, 50%"] * 2 == stream.getvalue().splitlines()


def test_progress_is_shown_beside_the_callback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error; nothing without being asked for."""
    seen: list[IngestProgress] = []
    passages = [(str(number), f"word {number}") for number in range(30)]
    for progress in (True, False):
        ingest_passages(
            passages,
            tmp_path,
            encoder=HashingEncoder(),
            on_progress=seen.append,
            progress=progress,
        )
        assert progress == (INDEX_NOTICE in capsys.readouterr().err)
    assert 30 == seen[-1].done
