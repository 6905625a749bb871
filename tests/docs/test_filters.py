"""The page about filters is true: its examples run, its tables match the code."""

from __future__ import annotations

import contextlib
import io
import re
from datetime import date
from typing import Any, get_args

import pytest

from msmarco_qdrant.cli.filters import Where, parse_filters
from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.field_path import payload_keys
from msmarco_qdrant.filters import All, Exists, GeoRadius, Not, Range, Text, check_filter
from msmarco_qdrant.filters import Any as AnyOf
from msmarco_qdrant.service.http.schemas_filter import to_meta_filter
from msmarco_qdrant.service.http.schemas_search import SearchIn
from msmarco_qdrant.stores.filter_indexes import index_advice, index_refusal
from msmarco_qdrant.stores.filters import to_qdrant
from tests.docs.pages import blocks, output_after, page, rows

TEXT = page("filters.md")
FORMS = rows(TEXT, "the field | in Python | `--filter` | over HTTP")
WHERE = [
    *rows(TEXT, "the field | in Python | `--where` | over HTTP"),
    *rows(TEXT, "the passage meets | in Python | `--where` | over HTTP"),
]
NAMES = {
    "Range": Range,
    "Not": Not,
    "Exists": Exists,
    "date": date,
    "Any": AnyOf,
    "All": All,
    "Text": Text,
    "GeoRadius": GeoRadius,
}
KINDS: dict[str, PayloadIndex] = {
    "meta.seen": "datetime",
    "meta.lang": "keyword",
    "meta.year": "integer",
    "meta.authors.born": "integer",
}
VALUES: dict[str, Any] = {
    "text": "x",
    "integer": 1,
    "fraction": 1.5,
    "boolean": True,
    "range of numbers": Range(gt=1),
    "moment": date(2024, 5, 1),
    "words": Text("sea music"),
    "place": GeoRadius(lat=1, lon=2, radius_m=3),
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
    parsed: Any = parse_filters(row[2].split(), KINDS)
    assert _in_python(row) == to_qdrant(parsed) == _over_http(row)


@pytest.mark.parametrize("row", WHERE, ids=[row[0] for row in WHERE])
def test_the_forms_of_where_mean_the_same(row: list[str]) -> None:
    """Some conditions on one field have no such form."""
    assert _in_python(row) == _over_http(row)
    if row[2]:
        parsed: Any = parse_filters([Where(row[2])], KINDS)
        assert _in_python(row) == to_qdrant(parsed)


def test_the_conditions_of_where_are_valid() -> None:
    """Each example in the table of conditions, and the command."""
    table = TEXT.split("| condition | meaning |", 1)[1].split("\n\n", 1)[0]
    found = re.findall(r"`([^`]+)`", "".join(line.split("|")[1] for line in table.split("\n")[2:]))
    assert 10 == len(found)
    for one in found:
        check_filter(parse_filters([Where(one)]))
    (command,) = [block for block in blocks(TEXT, "sh") if "--where" in block]
    check_filter(parse_filters([Where(re.findall(r'--where "([^"]+)"', command)[0])]))


def _in_python(row: list[str]) -> Any:
    given: Any = eval(row[1], dict(NAMES))  # noqa: S307  # the page's own
    check_filter(given)
    return to_qdrant(given)


def _over_http(row: list[str]) -> Any:
    body = SearchIn.model_validate_json(f'{{"query": "x", "filter": {row[3]}}}')
    return to_qdrant(to_meta_filter(body.filter) or {})


def test_the_table_of_indexes() -> None:
    """Each kind of index with each kind of value."""
    head = f"index | {' | '.join(VALUES)}"
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
