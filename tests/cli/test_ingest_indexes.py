"""The `--index` option of `ingest`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from msmarco_qdrant.collection.create import parse_indexes
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.vectors import write_folder


@pytest.fixture
def vectors(tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder) -> str:
    """A folder of vectors, so that no model is loaded."""
    return str(write_folder(tmp_path / "vectors", passages, encoder))


@pytest.mark.slow
def test_fields_are_indexed_with_the_collection(vectors: str) -> None:
    """`info` shows them; the same index is accepted again, another kind is refused."""
    ingest = ("ingest", "--vectors", vectors, "--store", "store", "--index", "lang=keyword")
    for _ in range(2):
        done = command(*ingest, "--index", "year=integer")
        assert 0 == done.status, done.err
    shown = command("info", "--store", "store").out
    assert all(index in shown for index in ("meta.lang (keyword)", "meta.year (integer)"))

    done = command(*ingest, "--index", "year=float")
    assert (2, "") == (done.status, done.out)
    assert "payload index of kind integer on 'meta.year', you asked for float" in done.err


def test_kind_follows_the_last_equals_sign() -> None:
    """A field's name may contain one; a repeated index counts once."""
    given = ["year=integer", "a=b=keyword", "year=integer"]
    assert {"year": "integer", "a=b": "keyword"} == parse_indexes(given, "--index")


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["year"], "--index must be FIELD=KIND with a KIND of keyword, integer, "),
        (["=integer"], "tenant, got '=integer'"),
        (["year=int"], "got 'year=int'"),
        (["year=integer", "year=float"], "got integer and float for 'year'"),
    ],
)
def test_invalid_index_is_wrong_usage(texts: Sequence[str], reason: str) -> None:
    """Before anything is read or created."""
    options = [part for text in texts for part in ("--index", text)]
    done = command("ingest", "nowhere.tsv", *options)
    assert (2, "") == (done.status, done.out)
    assert reason in done.err
    assert [] == list(Path().iterdir())
