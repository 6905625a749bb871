"""Tests of facets that depend on the size or the limits of a collection."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from msmarco_qdrant.collection import facets
from msmarco_qdrant.collection.facets import count_facets
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Facet
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.loopback import LoopbackServer
from tests.search.test_strict_mode import restrict

_LANGS = [Facet("en", 2), Facet("fr", 1)]


def test_a_scan_of_a_large_collection_advises_an_index(
    tmp_path: Path,
    passages: Sequence[Passage],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command of the warning ends it."""
    monkeypatch.setattr(facets, "_MANY_POINTS", len(passages))
    store = str(tmp_path / "store")
    ingest_passages(passages, store, encoder=HashingEncoder(), optimize=False)
    with caplog.at_level(logging.WARNING):
        assert _LANGS == count_facets(store, "lang")
    (message,) = caplog.messages
    assert "the field 'lang' has no payload index" in message
    words = message.split("`")[1].split()
    assert ["msmarco-qdrant", "index", "add", "lang=keyword"] == words[:4]
    assert 0 == command(*words[1:]).status
    caplog.clear()
    assert _LANGS == count_facets(store, "lang")
    assert not caplog.messages


def test_strict_mode_bounds_facets(
    server: LoopbackServer, passages: Sequence[Passage], caplog: pytest.LogCaptureFixture
) -> None:
    """A limit above its own is refused; where it forbids exact counts, they are estimates."""
    ingest_passages(
        passages, server.url, encoder=HashingEncoder(), payload_indexes={"lang": "keyword"}
    )
    restrict(server, max_query_limit=2, search_allow_exact=False)
    with open_store(server.url) as store:
        with pytest.raises(UsageError, match=r"at most 2 by the strict mode .* got 3"):
            count_facets(store, "lang", limit=3)
        assert _LANGS == count_facets(store, "lang", limit=2)
    assert "counts of collection 'msmarco' are estimates" in caplog.text
