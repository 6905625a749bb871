"""Payload indexes of an ingest: created with the collection, refused afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.filters import canonical_key
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import ENGINES, new_store
from tests.loopback import LoopbackServer
from tests.stores.server.test_store import before_call

INDEXES: dict[str, PayloadIndex] = {
    "lang": "keyword",
    "year": "integer",
    "author.score": "float",
    "live": "bool",
    "größe in cm": "float",
    "größe": "datetime",
}
_ingest: Any = partial(ingest_passages, optimize=False)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_new_collection_has_them(
    engine: str, tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Under the keys of the payload; the same again, some of them or none is fine."""
    with new_store(engine, tmp_path) as store:
        for indexes in (INDEXES, INDEXES, {"lang": "keyword"}, None):
            _ingest(passages, store, encoder=encoder, payload_indexes=indexes)
        found = store.collection("msmarco").info().spec.payload_indexes
        expected = {
            "seq": "integer",
            "meta.lang": "keyword",
            "meta.year": "integer",
            "meta.author.score": "float",
            "meta.author[].score": "float",
            "meta.live": "bool",
            'meta."größe in cm"': "float",
            "meta.größe": "datetime",
        }
        known = expected if store.capabilities.payload_indexes else {}
        assert known == {canonical_key(key): kind for key, kind in found.items()}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"year": "integer"}, r"no payload index on 'meta\.year', you asked for integer"),
        (
            {"lang": "keyword", "live": "keyword"},
            r"a payload index of kind bool on 'meta\.live', you asked for keyword",
        ),
    ],
)
def test_an_existing_collection_gets_no_more(
    asked: dict[str, PayloadIndex],
    reason: str,
    tmp_path: Path,
    passages: Sequence[Passage],
    encoder: HashingEncoder,
) -> None:
    """The message says what there is and how to get there; nothing is written."""
    kept: dict[str, PayloadIndex] = {"lang": "keyword", "live": "bool"}
    with new_store("loopback", tmp_path) as store:
        _ingest(passages[:1], store, encoder=encoder, payload_indexes=kept)
        with pytest.raises(UsageError, match=f"'msmarco' has {reason}: .*index (add|remove)"):
            _ingest(passages, store, encoder=encoder, payload_indexes=asked)
        assert 1 == store.collection("msmarco").info().points


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"year": "int"}, "index kind of 'year' must be one of keyword, integer"),
        ({'a"b': "keyword"}, 'quotation marks around a whole name only, .*, got a"b'),
        ({1: "keyword"}, "must be a string without NUL and lone surrogates, got 1"),
        (["year"], "payload_indexes must map fields to kinds"),
    ],
)
def test_what_is_no_index_makes_nothing(
    asked: Any, reason: str, tmp_path: Path, encoder: HashingEncoder
) -> None:
    """Told before anything is created."""
    with pytest.raises(UsageError, match=reason):
        ingest_passages([], tmp_path / "store", encoder=encoder, payload_indexes=asked)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "number",
    [n if n % 4 == 0 else pytest.param(n, marks=pytest.mark.slow) for n in range(9)],
)
def test_another_ingest_without_them_may_come_first(
    number: int, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Before each of our calls in turn: they are there in the end, or their lack is told."""
    asked: dict[str, PayloadIndex] = {"lang": "keyword"}
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        theirs = partial(_ingest, passages, server.url, encoder=encoder)
        before_call(store, number, theirs)
        with suppress(UsageError):
            _ingest(passages, store, encoder=encoder, payload_indexes=asked)
            assert "keyword" == store.collection("msmarco").info().spec.payload_indexes["meta.lang"]
        assert len(passages) == store.collection("msmarco").info().points
