"""What is kept with a collection, as JSON: round trips, older documents, damaged ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.core.search_defaults import SearchDefaults
from msmarco_qdrant.core.search_types import Fusion
from msmarco_qdrant.errors import StoreCorruptError
from msmarco_qdrant.stores.metadata import metadata_from_json, metadata_to_json
from tests.contract.test_store import make_metadata


@pytest.mark.parametrize(
    ("copied_from", "previous"),
    [
        (None, None),
        ("things__0001", None),
        (None, "things__0001"),
        ("things__0002", "things__0001"),
    ],
)
def test_metadata_are_read_as_they_were_written(
    copied_from: str | None, previous: str | None
) -> None:
    """Through JSON text, whatever is set."""
    metadata = replace(make_metadata(), copied_from=copied_from, previous=previous)
    text = json.dumps(metadata_to_json(metadata))
    assert metadata == metadata_from_json(json.loads(text), "things")


def test_an_older_document_names_no_other_collection() -> None:
    """Versions before the re-embedding wrote neither field."""
    document = metadata_to_json(make_metadata())
    del document["copied_from"], document["previous"]
    assert make_metadata() == metadata_from_json(document, "things")


@pytest.mark.parametrize("field", ["copied_from", "previous"])
@pytest.mark.parametrize("value", [1, True, ["things__0001"], {}])
def test_a_collection_that_is_no_name_is_refused(field: str, value: Any) -> None:
    """The error says what was found."""
    document = {**metadata_to_json(make_metadata()), field: value}
    with pytest.raises(StoreCorruptError, match=rf"'things'.*{field} must be a name, got "):
        metadata_from_json(document, "things")


def test_search_defaults_are_read_as_they_were_written() -> None:
    """Through JSON text; a document of an earlier version has none."""
    kept = SearchDefaults(Fusion("rrf", 0.4, k=20), ef=64, rerank_depth=50, source="a test")
    metadata = replace(make_metadata(), search_defaults=kept)
    text = json.dumps(metadata_to_json(metadata))
    assert metadata == metadata_from_json(json.loads(text), "things")
    assert "search_defaults" not in metadata_to_json(make_metadata())


@pytest.mark.parametrize(
    "value", [{"ef": 0}, {"ef": "64"}, {"fusion": {"method": "sum"}}, {"efs": 3}, {"fusion": 3}]
)
def test_invalid_search_defaults_are_refused(value: Any) -> None:
    """Like other invalid metadata."""
    document = {**metadata_to_json(make_metadata()), "search_defaults": value}
    with pytest.raises(StoreCorruptError, match="'things' has invalid metadata"):
        metadata_from_json(document, "things")


def test_search_defaults_are_json_values() -> None:
    """As `info --json` prints them."""
    value = to_json_value(replace(make_metadata(), search_defaults=SearchDefaults(Fusion(), ef=9)))
    assert {"fusion", "ef", "rerank_depth", "source"} == value["search_defaults"].keys()
    assert 9 == value["search_defaults"]["ef"]
