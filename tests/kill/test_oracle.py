"""The oracle of the kill tests: what may be there, and what is told of the rest."""

from __future__ import annotations

from msmarco_qdrant.core.records import Passage
from tests.kill.oracle import Oracle, wrong

OLD, NEW = Passage("1", "old"), Passage("1", "new")


def test_without_an_answer_both_may_be() -> None:
    """What was there, each that was asked for since; what was refused may not."""
    oracle = Oracle()
    oracle.asked({"1": OLD})
    oracle.accepted({"1": OLD})
    oracle.asked({"1": None})
    oracle.asked({"1": NEW})
    oracle.refused({"1": NEW})
    assert {"1": [OLD, None]} == oracle.allowed


def test_an_answer_settles_what_came_before() -> None:
    """Nothing that was asked for before it may be there any more."""
    oracle = Oracle()
    oracle.asked({"1": OLD})
    oracle.asked({"1": NEW})
    oracle.accepted({"1": NEW})
    assert ({"1": [NEW]}, NEW) == (oracle.allowed, oracle.last("1"))


def test_what_is_lost_back_or_nobodys_is_told() -> None:
    """Each with what may be there instead."""
    allowed: dict[str, list[Passage | None]] = {"1": [NEW], "2": [None]}
    assert {"1": (None, [NEW])} == wrong(allowed, {})
    assert {"1": (OLD, [NEW])} == wrong(allowed, {"1": OLD})
    back = Passage("2", "back")
    assert {"2": (back, [None]), "3": (back, ())} == wrong(
        allowed, {"1": NEW, "2": back, "3": back}
    )
