"""Fast construction of frozen dataclasses."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from msmarco_qdrant.core.fast_init import fast_init
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Fusion, Hit


def test_a_value_is_the_one_of_the_class() -> None:
    """It is equal, frozen, and copied as one, with defaults of its own."""
    made = fast_init(Hit)(1, "7", 0.5, "text", meta={"a": 1})
    assert (type(made), made) == (Hit, Hit(1, "7", 0.5, "text", {"a": 1}))
    assert copy.deepcopy(made) == made
    with pytest.raises(FrozenInstanceError):
        made.rank = 2  # type: ignore[misc]  # refused
    first, second = (fast_init(Passage)("7", "text") for _ in range(2))
    assert first == Passage("7", "text")
    assert first.meta is not second.meta


@dataclass(frozen=True)
class _WithoutSlots:
    pid: str


@pytest.mark.parametrize("kind", [_WithoutSlots, Fusion])
def test_a_class_that_needs_its_init_is_refused(kind: Any) -> None:
    """One without slots cannot be made so; one that checks its values must not be."""
    with pytest.raises(TypeError, match=kind.__name__):
        fast_init(kind)
