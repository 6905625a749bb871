"""Stores for commands that need no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer


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
