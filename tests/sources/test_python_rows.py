"""Sources made in Python: objects, dictionaries, tuples, data frames, tables, and mixtures."""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pytest

from msmarco_qdrant.collection.passages import get_passages
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.sources.corpus import Reading, as_rows
from msmarco_qdrant.sources.rejects import check_row, describe_reject
from msmarco_qdrant.testing import HashingEncoder

_ROWS = [
    {"pid": 1, "text": "one", "year": 2001, "day": date(2024, 5, 1)},
    {"pid": 2, "text": "two", "year": None, "day": None},
]
_EXPECTED = [Passage("1", "one", {"year": 2001, "day": "2024-05-01"}), Passage("2", "two")]
_Row = namedtuple("_Row", ["pid", "text"])  # as pandas makes them


class HubDataset:
    """Iterates over dictionaries, like a dataset of Hugging Face; not a sequence of them."""

    column_names = ("pid", "text", "year", "day")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from _ROWS


def frame(library: str) -> Any:
    """The rows as a data frame; skipped where the library is not installed."""
    return pytest.importorskip(library).DataFrame(_ROWS)


SOURCES: dict[str, Callable[[], Any]] = {
    "passages": lambda: _EXPECTED,
    "dictionaries": lambda: _ROWS,
    "mappings": lambda: map(MappingProxyType, _ROWS),
    "arrow table": lambda: pa.Table.from_pylist(_ROWS),
    "arrow batches": lambda: pa.Table.from_pylist(_ROWS).to_batches(max_chunksize=1),
    "arrow reader": lambda: pa.Table.from_pylist(_ROWS).to_reader(),
    "dataset": HubDataset,
    "pandas": lambda: frame("pandas"),
    "pandas index": lambda: frame("pandas").set_index("pid"),
    "pandas parts": lambda: (frame("pandas").iloc[n : n + 1] for n in range(2)),
    "polars": lambda: frame("polars"),
    "mixture": lambda: (item for item in [_ROWS[0], pa.Table.from_pylist(_ROWS[1:])]),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_source_gives_the_same_passages(source: str) -> None:
    """With meta as JSON values, and without missing values."""
    assert _EXPECTED == [*as_rows(SOURCES[source]())]


def test_tuples_are_pid_text_and_meta() -> None:
    """A named one has the fields of its names."""
    rows: list[Any] = [("1", "one"), (2, "two", {"a": 1}), _Row("3", "three")]
    expected = [Passage("1", "one"), Passage("2", "two", {"a": 1}), Passage("3", "three")]
    assert expected == [*as_rows(rows)]
    assert [1, 2, 3] == [row.line for row in as_rows(rows)]


def test_a_source_can_be_read_again() -> None:
    """As often as the object it was made of."""
    rows = as_rows(_ROWS)
    assert [*rows] == [*rows]


def test_invalid_rows_are_rejects_with_their_number() -> None:
    """The others are passages."""
    rows: list[Any] = [{"text": "no id"}, ("1", "one"), ("2", ""), {"pid": "3", "text": 4}]
    found = [*as_rows(rows)]
    assert [True, False, True, True] == [isinstance(row, Reject) for row in found]
    assert [1, 2, 3, 4] == [row.line for row in found]
    assert "the text is empty" == getattr(found[2], "reason", "")


def test_names_of_fields_are_for_rows_with_fields() -> None:
    """And for nothing else: a passage has its own."""
    rows = [{"key": "1", "body": "one", "secret": 1}]
    assert [Passage("1", "one")] == [*as_rows(rows, Reading(pid_field="key", skip_field="secret"))]
    with pytest.raises(UsageError, match="got a Passage: omit it"):
        [*as_rows(_EXPECTED, Reading(pid_field="key"))]
    with pytest.raises(UsageError, match="format needs paths"):
        as_rows(rows, Reading("tsv"))


def test_skipped_fields_may_come_once() -> None:
    """An iterator of names is read when they are checked, and used for every row."""
    reading = Reading(skip_field=iter(["secret"]))  # type: ignore[arg-type]
    rows = [{"pid": pid, "text": "one", "secret": 1} for pid in ("1", "2")]
    assert [Passage("1", "one"), Passage("2", "one")] == [*as_rows(rows, reading)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Passage("1", "one"), "also for one passage"),
        ({"train": _ROWS}, "pass one split"),
        (7, "passages must be .*, got an int"),
        ([7], "got an int"),
        ([("1",)], "got a tuple of 1 values"),
        (["1", 2], "a path must be a string or a Path, got an int"),
    ],
)
def test_anything_else_is_refused(source: Any, message: str) -> None:
    """With what was found."""
    with pytest.raises(Exception, match=message):
        [*as_rows(source)]


def test_a_data_frame_is_ingested(tmp_path: Path) -> None:
    """The public function takes what the reader takes."""
    source = pa.Table.from_pylist(_ROWS)
    report = ingest_passages(source, tmp_path, encoder=HashingEncoder(), optimize=False)
    assert (2, 0) == (report.written, report.rejected)
    assert _EXPECTED[0] == get_passages(tmp_path, ["1"])["1"]


class _StandIn:
    """The part of a data frame of pandas that is used, for machines without pandas."""

    columns = ("pid", "text", "year")

    class index:  # noqa: N801
        """Has no name."""

        name = None

    def __len__(self) -> int:
        return 2

    @property
    def iloc(self) -> _StandIn:
        """Gives slices."""
        return self

    def __getitem__(self, _rows: slice) -> _StandIn:
        return self

    def to_dict(self, *, orient: str) -> list[dict[str, Any]]:
        """The rows; pandas has NaN for a missing number."""
        assert "records" == orient
        nan = float("nan")
        return [{"pid": 1, "text": "one", "year": 1.5}, {"pid": 2, "text": "two", "year": nan}]


def test_missing_values_of_pandas_are_left_out() -> None:
    """A NaN there means nothing; elsewhere it is rejected."""
    _StandIn.__module__ = "pandas.stand_in"
    assert [Passage("1", "one", {"year": 1.5}), Passage("2", "two")] == [*as_rows(_StandIn())]
    (reject,) = as_rows([{"pid": "1", "text": "one", "year": float("nan")}])
    assert isinstance(reject, Reject)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"pid": "m1", "text": object()}, "row 1, pid 'm1': 'text' must be a string, got an obj"),
        ({"id": 7, "text": 1.5}, "row 1, pid '7': 'text' must be a string, got a float"),
        (("", "x"), "row 1, pid '': no pid: it is empty"),
        ({"text": "x"}, "row 1: no pid: expected a field"),
        (("m1", None), "row 1, pid 'm1': the text must be a string, got null"),
        (Passage("m\n1", ""), r"pid 'm\n1': the text is empty"),
        (Passage("p" * 99, ""), f"pid '{'p' * 60}'...: the text is empty"),
        (pa.table({"pid": ["m1"], "text": [["a"]]}), "row 1, pid 'm1': .*, got a list"),
        (pa.table({"pid": ["m1"], "text": [{"a": 1}]}), "row 1, pid 'm1': .*, got a struct"),
    ],
)  # fmt: skip
def test_s3_a_reject_is_named_by_row_and_pid(row: Any, told: str) -> None:
    """Not by the start of its JSON; a Passage made in Python has no number."""
    rejects = [check_row(row) for row in as_rows([row])]
    (reject,) = [found for found in rejects if isinstance(found, Reject)]
    assert re.match(told, describe_reject(reject).replace("\\n", "\n"))
