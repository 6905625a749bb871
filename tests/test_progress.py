"""`progress=True` of the long operations."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from msmarco_qdrant import (
    SearchClient,
    backup_collection,
    check_collection,
    encode_corpus,
    export_passages,
    ingest_passages,
    reembed_collection,
    restore_collection,
    rollback_collection,
)
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.evaluation import System, evaluate_search
from msmarco_qdrant.testing import HashingEncoder

PASSAGES = [(str(number), f"castle {number}") for number in range(1, 30)]
OLD, NEW = HashingEncoder(), HashingEncoder(dimension=32)


class Terminal(io.StringIO):
    """Standard error of a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def encode(store: Path, *, progress: bool) -> None:
    """Encode into a folder beside the store."""
    encode_corpus(PASSAGES, store / "shards", encoder=OLD, progress=progress)


def evaluate(store: Path, *, progress: bool) -> None:
    """Evaluate one query."""
    with SearchClient.open(store / "s", encoder=OLD) as client:
        queries = [Query("q1", "castle 1"), Query("q2", "castle 2")]
        judgments = {"q1": {"1": 1}, "q2": {"2": 1}}
        evaluate_search(client, queries, judgments, [System()], progress=progress)


def export(store: Path, *, progress: bool) -> None:
    """Export to a file."""
    export_passages(store / "s", store / "passages.jsonl", progress=progress)


def back_up(store: Path, *, progress: bool) -> None:
    """Write a portable backup."""
    folder = store / f"backup {progress}"
    backup_collection(store / "s", "msmarco", folder, portable=True, progress=progress)


def restore(store: Path, *, progress: bool) -> None:
    """Restore a portable backup into another store."""
    back_up(store, progress=False)
    folder = store / "backup False"
    restore_collection(store / f"restored {progress}", folder, progress=progress)
    folder.rename(store / f"used {progress}")


def check(store: Path, *, progress: bool) -> None:
    """Check every point."""
    check_collection(store / "s", "msmarco", progress=progress)


def reembed_and_back(store: Path, *, progress: bool) -> None:
    """Change the model, and go back."""
    for change, encoder in ((reembed_collection, NEW), (rollback_collection, OLD)):
        change(store / "s", encoder=encoder, load_old=_load, progress=progress)


def _load(info: EncoderInfo) -> HashingEncoder:
    return OLD if info.dimension == OLD.info.dimension else NEW


@pytest.mark.parametrize(
    ("operation", "shown"),
    [
        *((operation, ["29 passages"]) for operation in (encode, export, back_up, restore, check)),
        (evaluate, ["searching with dense: 2 queries", "1 queries"]),
        (
            reembed_and_back,
            ["to the new collection", "29 passages", "to the older collection"],
        ),
    ],
)
def test_progress_shows_a_bar_on_standard_error(
    operation: Callable[..., None],
    shown: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is shown without it."""
    ingest_passages(PASSAGES, tmp_path / "s", encoder=OLD, optimize=False)
    for progress in (True, False):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        operation(tmp_path, progress=progress)
        for part in shown:
            assert progress == (part in stream.getvalue()), (part, stream.getvalue())
