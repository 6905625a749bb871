"""The pids of a run."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msmarco_qdrant.core.pid_set import PidSet


@given(st.lists(st.text(max_size=3)))
@settings(max_examples=30)
def test_it_is_a_set(pids: list[str]) -> None:
    """`add` returns the same as for a Python set."""
    ours, reference = PidSet(), set[str]()
    for pid in pids:
        assert ours.add(pid) == (pid not in reference)
        reference.add(pid)
    assert len(ours) == len(reference)


@pytest.mark.slow
def test_a_pid_takes_less_than_sixteen_bytes() -> None:
    """The arrays of 200,000 pids, spare capacity included, take less than 16 bytes per pid."""
    pids = PidSet()
    count = 200_000
    for number in range(count):
        assert pids.add(str(number))
    arrays = [*pids._high.values(), *pids._low.values()]
    fixed = len(arrays) * array("Q").__sizeof__()
    assert (sum(one.__sizeof__() for one in arrays) - fixed) / count < 16
