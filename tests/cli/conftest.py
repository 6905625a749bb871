"""Stores for commands, and a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import EXTRA, SAMPLE, Place, command
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.evaluation.dataset import library
from tests.loopback import LoopbackServer

__all__ = ["library"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a tiny bi-encoder with random weights, which loads fast."""
    return str(save_tiny(tmp_path_factory.mktemp("tiny") / "model", Recipe()))


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A part of the sample and three passages with meta, ingested with a real model."""
    directory = tmp_path_factory.mktemp("cli")
    sample, extra = directory / "sample.tsv", directory / "extra.jsonl"
    with sample_passages() as path:
        lines = path.read_bytes().splitlines(keepends=True)
    sample.write_bytes(b"".join(lines[:SAMPLE]))
    extra.write_text("".join(f"{json.dumps(row)}\n" for row in EXTRA), "utf-8")
    store, rejects = str(directory / "store"), directory / "rejects.jsonl"
    first = command(
        *("ingest", str(sample), str(extra), "--store", store, "--model", "all-MiniLM-L6-v2"),
        *("--rejects", str(rejects), "--json"),
    )
    assert not rejects.exists()
    return Place(store, str(sample), str(extra), first)


@pytest.fixture(params=["edge", "loopback"])
def filled(
    request: pytest.FixtureRequest, tmp_path: Path, passages: Sequence[Passage]
) -> Iterator[str]:
    """A directory and then a server's URL, with five passages in the collection 'msmarco'."""
    with ExitStack() as stack:
        if request.param == "edge":
            place = str(tmp_path / "store")
        else:
            place = stack.enter_context(LoopbackServer()).url
        ingest_passages(passages, place, encoder=HashingEncoder(), optimize=False)
        yield place
