"""The page about filters is true: its examples run, its tables match the code."""

from __future__ import annotations

import contextlib
import io
from datetime import date
from typing import Any, get_args

import pytest

from msmarco_qdrant.cli.filters import parse_filters
from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.field_path import payload_keys
from msmarco_qdrant.filters import Exists, Not, Range, check_filter
from msmarco_qdrant.service.http.schemas_search import SearchIn
from msmarco_qdrant.stores.filter_indexes import index_advice, index_refusal
from msmarco_qdrant.stores.filters import to_qdrant
from tests.docs.pages import blocks, output_after, page, rows

TEXT = page("filters.md")
FORMS = rows(TEXT, "the field | in Python | `--filter` | over HTTP")
VALUES: dict[str, Any] = {
    "text": "x",
    "integer": 1,
    "fraction": 1.5,
    "boolean": True,
    "range of numbers": Range(gt=1),
    "moment": date(2024, 5, 1),
}


def test_the_example_prints_what_is_shown() -> None:
    """In memory, without a model."""
    (block,) = blocks(TEXT, "python")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(block, "filters.md", "exec"), {})  # noqa: S102  # the page's own
    assert output_after(TEXT, block) == shown.getvalue()


@pytest.mark.parametrize("row", FORMS, ids=[row[0] for row in FORMS])
def test_the_three_forms_mean_the_same(row: list[str]) -> None:
    """In Python, on the command line and over HTTP."""
    names = {"Range": Range, "Not": Not, "Exists": Exists, "date": date}
    in_python: Any = eval(row[1], names)  # noqa: S307  # the page's own
    check_filter(in_python)
    kinds: dict[str, PayloadIndex] = {"meta.seen": "datetime"}
    parsed: Any = parse_filters(row[2].split(), {**kinds, "meta.lang": "keyword"})
    body = SearchIn.model_validate_json(f'{{"query": "x", "filter": {row[3]}}}')
    assert to_qdrant(in_python) == to_qdrant(parsed) == to_qdrant(body.meta_filter or {})


def test_the_table_of_indexes() -> None:
    """Each kind of index with each kind of value."""
    head = "index | text | integer | fraction | boolean | range of numbers | moment"
    shown = {row[0]: row[1:] for row in rows(TEXT, head)}
    found = {}
    for kind in ("none", *get_args(PayloadIndex)):
        indexes = {} if kind == "none" else {"meta.x": kind}
        cells = []
        for value in VALUES.values():
            chosen = to_qdrant({"x": value})
            served = "yes, scans" if index_advice(chosen, indexes) else "yes"
            cells.append("refused" if index_refusal(chosen, indexes) else served)
        found[kind] = cells
    assert found == shown


def test_the_names_are_valid() -> None:
    """Also those in quotation marks."""
    names = [name for row in rows(TEXT, "name | field") for name in row[0].split(", ")]
    assert ["meta.author.name", "meta.author[].name"] == [*payload_keys(names[0])]
    assert ['meta."author.name"'] == [*payload_keys('"author.name"')]
    for name in names:
        check_filter({name: 1})
