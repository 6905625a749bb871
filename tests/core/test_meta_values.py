"""Values of Python, NumPy and Arrow in `meta`: what is stored, and what is refused."""

from __future__ import annotations

import array
import json
import math
import subprocess
import sys
from collections import OrderedDict, UserDict, UserString, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from msmarco_qdrant import Passage
from msmarco_qdrant.core.digests import meta_digest
from msmarco_qdrant.core.meta_values import MetaValueError, as_moment, plain_meta
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.sources.rejects import check_row
from msmarco_qdrant.sources.rows import hashed_reason

BERLIN = timezone(timedelta(hours=2))
LOCAL_MEAN_TIME = timezone(timedelta(minutes=53, seconds=28))
NS = 1_714_566_600_000_000_001  # 2024-05-01T12:30:00.000000001


class Plain(Enum):
    """An enum without a base."""

    WHEN = date(2024, 5, 1)


class Word(StrEnum):
    """An enum of strings."""

    EN = "en"


class Old(str, Enum):  # noqa: UP042  # what StrEnum replaces: its str() is the name
    """An enum of strings, as before Python 3.11."""

    EN = "en"


class Number(IntEnum):
    """An enum of integers."""

    ONE = 1


class NaTType(datetime):
    """A stand-in of the class of `pandas.NaT`, which is a datetime, too."""


NaTType.__module__ = "pandas._libs.tslibs.nattype"
Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (datetime(2024, 5, 1), "2024-05-01T00:00:00"),
        (datetime(2024, 5, 1, 12, 30, 0, 5, BERLIN), "2024-05-01T12:30:00.000005+02:00"),
        (datetime(1890, 1, 1, tzinfo=LOCAL_MEAN_TIME), "1889-12-31T23:06:32+00:00"),
        (date(2024, 5, 1), "2024-05-01"),
        (time(12, 30), "12:30:00"),
        (timedelta(days=1), 86_400),
        (timedelta(milliseconds=-1500), -1.5),
        (Decimal("9.99"), 9.99),
        (Decimal("10.00"), 10.0),
        (Decimal(12), 12),
        (Decimal("1E+2"), 100),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        (Plain.WHEN, "2024-05-01"),
        (Word.EN, "en"),
        (Old.EN, "en"),
        (Number.ONE, 1),
        (UserString("en"), "en"),
        (b"Gr\xc3\xbc\xc3\x9fe\n", "Grüße\n"),
        (bytearray(b"a"), "a"),
        (memoryview(b"a"), "a"),
        ((1, ("a", None)), [1, ["a", None]]),
        (Pair(1, "b"), [1, "b"]),
        (deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (array.array("d", [0.5]), [0.5]),
        ({10, 9, 1.5}, [1.5, 9, 10]),
        (frozenset({"b", "a", 2, None, True}), [2, "a", "b", None, True]),
        ({(2, 1), (1, 2)}, [[1, 2], [2, 1]]),
        (UserDict({"b": (1,)}), {"b": [1]}),
        (OrderedDict(a={1}), {"a": [1]}),
        (NaTType(2024, 5, 1), None),
        (np.int64(7), 7),
        (np.uint8(7), 7),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("en"), "en"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(1.5), 1.5),
        (np.array(["a", date(2024, 5, 1)], object), ["a", "2024-05-01"]),
        (np.datetime64("2024-05-01"), "2024-05-01"),
        (np.datetime64("2024-05-01T12:30"), "2024-05-01T12:30:00"),
        (np.datetime64(NS, "ns"), "2024-05-01T12:30:00.000000001"),
        (np.datetime64(NS - 1, "ns"), "2024-05-01T12:30:00"),
        (np.datetime64(-1, "ns"), "1969-12-31T23:59:59.999999999"),
        (np.datetime64("NaT", "s"), None),
        (np.array([NS], "datetime64[ns]"), ["2024-05-01T12:30:00.000000001"]),
        (np.array(NS, "datetime64[ns]"), "2024-05-01T12:30:00.000000001"),
        (np.timedelta64(90, "s"), 90),
        (np.timedelta64(1, "ns"), 1e-9),
        (pa.scalar(NS, pa.timestamp("ns", "UTC")), "2024-05-01T12:30:00.000000001+00:00"),
        (pa.scalar(1, pa.time64("ns")), "00:00:00.000000001"),
        (pa.scalar(10**9, pa.duration("ns")), 1),
        (pa.scalar(None, pa.timestamp("ns")), None),
        (pa.scalar(Decimal("1.25"), pa.decimal128(9, 2)), 1.25),
        (pa.scalar(b"\x00" * 16, pa.uuid()), "00000000-0000-0000-0000-000000000000"),
        (pa.scalar([("a", 1)], pa.map_(pa.string(), pa.int64())), {"a": 1}),
        (pa.scalar({"a": [NS]}, pa.struct({"a": pa.list_(pa.timestamp("ns"))})),
         {"a": ["2024-05-01T12:30:00.000000001"]}),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.scalar(b"a", pa.large_binary()), "a"),
    ],
)  # fmt: skip
def test_c7_values_with_a_plain_meaning(given: Any, expected: Any) -> None:
    """They are stored as JSON values of the exact types, also deep inside."""
    meta = {"x": given, "deep": [{"y": given}]}
    plain = plain_meta(meta)
    assert {"x": expected, "deep": [{"y": expected}]} == plain
    assert json.loads(json.dumps(plain)) == plain
    assert type(expected) is type(plain["x"])
    assert meta == {"x": given, "deep": [{"y": given}]} or isinstance(given, np.ndarray)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"\xff\x00", r"'x' must be a JSON value, got bytes that are not text: convert it"),
        (b"\x01", "bytes that are not text: convert it, or leave the field out .--skip-field x"),
        (1j, "'x' must be a JSON value, got a complex: .*--skip-field x"),
        (object(), "got an object: .*--skip-field x"),
        (iter([1]), "got a list_iterator"),
        (np.longdouble(1), "got a longdouble"),
        (np.datetime64(1, "ps"), "got a datetime64"),
        (math.nan, "'x' must be a finite number, got nan"),
        (np.float32(math.inf), "must be a finite number, got inf"),
        (Decimal("NaN"), "must be a finite number, got NaN"),
        (Decimal("1E+999999"), r"must fit a float64 or a signed 64-bit integer, got 1E\+999999"),
        (Decimal("0.12345678901234567890"), "a float64 holds with all digits, .* as a string"),
        (Decimal(2**63), "must be a signed 64-bit integer, got 9223372036854775808; write it"),
        (2**63, "must be a signed 64-bit integer"),
        (np.uint64(2**63), "must be a signed 64-bit integer"),
        ({1: "a"}, "a field name must be a string, got an integer"),
        (pa.scalar([(1, 2)], pa.map_(pa.int64(), pa.int64())), "a field name must be a string"),
        ("a\ud800", r"'x' holds a lone surrogate, U\+D800"),
        ({"\ud800": 1}, r"a field name in field 'x' holds a lone surrogate"),
        ((1, {"a": "\0"}), r"'x'\[1\].a holds a NUL byte"),
        (pa.scalar([("a", 1), ("a", 2)], pa.map_(pa.string(), pa.int64())), "each key once"),
    ],
)  # fmt: skip
def test_c7_other_values_are_refused_with_the_field(given: Any, reason: str) -> None:
    """Of a passage made in Python it is the reject's reason."""
    with pytest.raises(MetaValueError, match=reason):
        plain_meta({"x": given})
    rejected = check_row(Passage("a", "x", {"x": given}))
    assert isinstance(rejected, Reject)
    assert rejected.reason.startswith(("field 'x'", "a field name", "a map"))


def test_c7_cycles_end() -> None:
    """A value that contains itself is nested too deeply."""
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    with pytest.raises(MetaValueError, match="nested too deeply: 24 levels are accepted"):
        plain_meta({"x": cycle})


def test_c7_json_values_stay_the_same_object() -> None:
    """Rows of files cost no copy, and their digests stay."""
    meta = {"a": [1, {"b": None}], "c": 0.5, "d": "ü", "e": True}
    assert plain_meta(meta) is meta
    assert "59cfd689d892825d55d6c5332cc3dd86" == meta_digest({"year": 2001, "lang": "en"})


def test_c7_digests_are_equal_for_equal_meaning() -> None:
    """An unchanged passage is not written again: sets have no order of their own."""
    left = {"tags": {"b", "a", "c"}, "when": datetime(2024, 5, 1), "n": np.int64(1)}
    right = {"n": 1, "when": "2024-05-01T00:00:00", "tags": ["a", "b", "c"]}
    assert meta_digest(plain_meta(left)) == meta_digest(plain_meta(right))


def test_c7_a_passage_of_python_keeps_its_value() -> None:
    """The passage to write has the plain values, the given one is unchanged."""
    given = Passage("a", "x", {"when": datetime(2024, 5, 1)})
    checked = check_row(given)
    assert Passage("a", "x", {"when": "2024-05-01T00:00:00"}) == checked
    assert {"when": datetime(2024, 5, 1)} == given.meta


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (date(2024, 5, 1), date(2024, 5, 1)),
        (np.datetime64("2024-05-01"), date(2024, 5, 1)),
        (np.datetime64(NS, "ns"), datetime(2024, 5, 1, 12, 30)),
        (pa.scalar(NS, pa.timestamp("ns", "UTC")), datetime(2024, 5, 1, 12, 30, tzinfo=UTC)),
        (NaTType(2024, 5, 1), None),
        ("2024-05-01", None),
        (time(12), None),
        (np.array([1]), None),
    ],
)
def test_c7_moments_of_libraries(given: Any, expected: date | None) -> None:
    """A filter compares them as moments."""
    assert expected == as_moment(given)


def test_c7_old_shards_keep_their_hashes() -> None:
    """The reason has more words than version 0.1.0 hashed."""
    reason = "field 'x' must be a JSON value, got a complex: convert it, or leave (--skip-field x)"
    assert "field 'x' is a complex, which JSON does not have" == hashed_reason(reason)


def test_c7_conversion_imports_no_library() -> None:
    """Values of NumPy and Arrow exist only if these were imported."""
    program = (
        "import sys, datetime; from msmarco_qdrant.core.meta_values import plain_meta; "
        "plain_meta({'a': {1, 2}, 'b': datetime.date(2024, 5, 1)}); "
        "assert not {'numpy', 'pandas', 'pyarrow'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
