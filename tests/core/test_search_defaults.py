"""Search options that a collection keeps: checks and their description."""

from __future__ import annotations

from typing import Any

import pytest

from msmarco_qdrant.core.search_defaults import SearchDefaults
from msmarco_qdrant.core.search_types import Fusion
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.options import SearchOptions, to_request


@pytest.mark.parametrize("name", ["ef", "rerank_depth"])
@pytest.mark.parametrize("value", [0, 10_001, 1.5, True, "64"])
def test_numbers_out_of_range_are_refused(name: str, value: Any) -> None:
    """With the rule and the value."""
    with pytest.raises(UsageError, match=f"{name} must be 1 to 10,000, got {value!r}"):
        SearchDefaults(**{name: value})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"fusion": "rrf"}, r"fusion must be a Fusion, such as Fusion\('rrf'\), got 'rrf'"),
        ({"source": 3}, "source must be a string, got 3"),
    ],
)
def test_other_types_are_refused(values: dict[str, Any], reason: str) -> None:
    """Before they are saved: nothing could open the collection afterwards."""
    with pytest.raises(UsageError, match=reason):
        SearchDefaults(**values)


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        (SearchDefaults(), "the package's"),
        (SearchDefaults(source="nothing"), "the package's"),
        (SearchDefaults(Fusion(dense_weight=0.75), ef=64), "convex fusion 0.75, ef 64"),
        (SearchDefaults(Fusion("rrf"), source="test"), "rrf fusion 0.5 (test)"),
        (SearchDefaults(rerank_depth=50), "rerank depth 50"),
    ],
)
def test_they_are_described_in_one_line(defaults: SearchDefaults, expected: str) -> None:
    """Only those that are kept."""
    assert expected == defaults.describe()


@pytest.mark.parametrize(
    ("options", "defaults", "expected"),
    [
        ({}, SearchDefaults(), (Fusion(), 128, None)),
        ({}, SearchDefaults(Fusion("rrf"), 64, 50), (Fusion("rrf"), 64, None)),
        ({"fusion": None, "ef": None}, SearchDefaults(ef=64), (Fusion(), 64, None)),
        ({"fusion": "dbsf", "ef": 9}, SearchDefaults(Fusion("rrf"), 64), (Fusion("dbsf"), 9, None)),
        ({"rerank_depth": "auto"}, SearchDefaults(), (Fusion(), 128, 100)),
        ({"rerank_depth": "auto"}, SearchDefaults(rerank_depth=50), (Fusion(), 128, 50)),
        (
            {"rerank_depth": "auto", "limit": 60},
            SearchDefaults(rerank_depth=50),
            (Fusion(), 128, 60),
        ),
        ({"rerank_depth": 20}, SearchDefaults(rerank_depth=50), (Fusion(), 128, 20)),
    ],
)
def test_a_request_takes_what_its_caller_omits(
    options: SearchOptions, defaults: SearchDefaults, expected: tuple[Fusion, int, int | None]
) -> None:
    """An explicit option always wins."""
    request = to_request(options, defaults)
    assert expected == (request.fusion, request.ef, request.rerank_depth)


def test_another_word_is_no_rerank_depth() -> None:
    """The message names the one that is."""
    options: Any = {"rerank_depth": "all"}
    with pytest.raises(UsageError, match="must be a number, \"auto\" or None, got 'all'"):
        to_request(options)


def test_a_checked_request_is_kept_by_the_types_of_its_values() -> None:
    """A search with equal values of other types is checked by itself; a filter is not kept."""
    given: SearchOptions = {"limit": 1, "with_meta": True}
    assert to_request(given) is to_request({**given})
    wrong: Any = [{"limit": True}, {"limit": 1.0}, {"with_meta": 1}, {"meta_filter": {"n": []}}]
    for other in wrong:
        with pytest.raises(UsageError):
            to_request({**given, **other})
    filtered = to_request({**given, "meta_filter": {"n": 1}})
    assert {"n": 1} == filtered.meta_filter
    assert to_request(given).meta_filter is None
