"""The progress bar of Python calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmarco_qdrant.core.reports import IngestProgress
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.runtime.progress_bar import ProgressBar
from msmarco_qdrant.testing import HashingEncoder


def test_a_bar_shows_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    """With the total once it is known; closing it twice is harmless."""
    bar = ProgressBar("passages")
    bar.show(5, None)
    bar.show(50, 0.5, "index")
    bar.close()
    bar.close()
    shown = capsys.readouterr().err
    assert "50.0/100" in shown
    assert "index" in shown


def test_an_ingest_shows_a_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, beside the callback; none without being asked for."""
    seen: list[IngestProgress] = []
    passages = [(str(number), f"word {number}") for number in range(30)]
    for progress in (True, False):
        ingest_passages(
            passages,
            tmp_path,
            encoder=HashingEncoder(),
            optimize=False,
            on_progress=seen.append,
            progress=progress,
        )
        assert progress == ("30.0 passages" in capsys.readouterr().err)
    assert 30 == seen[-1].done
