"""Texts of passages for training, and pids that the collection lacks."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from msmarco_qdrant import SearchClient
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.train import PassageTexts
from tests.train.small_collection import PASSAGES, fill, open_client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchClient]:
    """A client on a small collection."""
    with open_client(fill(tmp_path_factory.mktemp("texts") / "store")) as opened:
        yield opened


def test_each_text_is_read_once_in_order(
    client: SearchClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A pid that the collection lacks is counted once, and logged."""
    texts = PassageTexts(client)
    pids = [*PASSAGES][:3]
    with caplog.at_level(logging.WARNING):
        found = texts.get([pids[2], pids[0], pids[2], "none", "none"])
    assert [*found.items()] == [(pid, PASSAGES[pid]) for pid in (pids[2], pids[0])]
    texts.get(["none", "other"])
    assert texts.missing == 2
    assert "lacks the passage 'none'" in caplog.text


def test_pids_of_another_collection_are_refused(client: SearchClient) -> None:
    """A file of another collection's pids does not pass as one without passages."""
    with pytest.raises(UsageError, match="has none of the pids, such as 'x'"):
        PassageTexts(client).get(["x", "y"])
    with pytest.raises(UsageError, match="pid must be a non-empty string"):
        PassageTexts(client).get([7])  # type: ignore[list-item]
