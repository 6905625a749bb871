"""Point ids, digests, the clock."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import PidCollisionError
from msmarco_qdrant.stores.payload import NAMESPACE, SeqClock, check_pid, payload_of, point_id


@pytest.mark.parametrize("number", [0, 1, 7, 8841822, 2**63, 2**64 - 1])
def test_a_plain_number_is_its_own_point_id(number: int) -> None:
    """The canonical decimal form of an unsigned 64-bit integer is that integer."""
    assert point_id(str(number)) == number


@pytest.mark.parametrize(
    "pid",
    ["007", "-7", "+7", " 7", "7 ", "7.0", "1e3", "٣", "", "18446744073709551616", "9" * 30, "a"],
)
def test_any_other_pid_is_a_uuid5(pid: str) -> None:
    """What is no canonical number becomes the uuid5 of the pid."""
    assert point_id(pid) == uuid.uuid5(NAMESPACE, pid)


def test_ids_never_change() -> None:
    """The ids of today: stored collections depend on them."""
    assert point_id("007") == uuid.UUID("57d9fed6-7dbc-56f2-83ae-c8f6288a2c92")


def test_digests_never_change() -> None:
    """The digests of today: another one would encode every stored passage again."""
    assert text_digest("how big is london") == "1ab20bbad5de7bdb21b05744e800ef8a"
    assert meta_digest({"b": [1, 2.5, None], "a": "é"}) == "3276393bf8a5a8df0e5ddcb8f78302ef"


def test_meta_digest_ignores_the_order_of_fields() -> None:
    """Two orders of the same fields are the same meta; another value is not."""
    assert meta_digest({"a": 1, "b": 2}) == meta_digest({"b": 2, "a": 1})
    assert meta_digest({"a": 1}) != meta_digest({"a": "1"})
    assert meta_digest({"a": 1}) != meta_digest({"a": True})


def test_payload_has_exactly_the_documented_fields() -> None:
    """pid, text, meta, both digests, seq."""
    payload = payload_of(Passage("1", "some text", {"a": 1}), seq=5)
    assert payload == {
        "pid": "1",
        "text": "some text",
        "meta": {"a": 1},
        "text_digest": text_digest("some text"),
        "meta_digest": meta_digest({"a": 1}),
        "seq": 5,
    }


def test_a_point_of_another_pid_is_refused() -> None:
    """A point that lost its pid may be written again."""
    for payload in ({"pid": "7"}, {"pid": 8}, {}):
        check_pid("7", payload)
    with pytest.raises(PidCollisionError, match="'7'"):
        check_pid("7", {"pid": "8"})


@given(st.integers(min_value=0, max_value=2**62))
def test_the_clock_never_goes_back(last: int) -> None:
    """Whatever number was last in use, the next ones are higher, and each higher than before."""
    clock = SeqClock(last)
    numbers = [clock.next() for _ in range(5)]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > last
