"""Token-budget batches: each text once, within the budget, the longest first."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from msmarco_qdrant.encoding.batching import split_by_tokens

LENGTHS = st.lists(st.integers(0, 600), max_size=300)
BUDGETS = st.integers(1, 5000)
ROWS = st.integers(1, 64)


def _batches(
    lengths: list[int], budget: int, max_rows: int, *, padded: bool = True
) -> list[list[int]]:
    batches = split_by_tokens(np.array(lengths, np.int64), budget, padded=padded, max_rows=max_rows)
    return [batch.tolist() for batch in batches]


@given(lengths=LENGTHS, budget=BUDGETS, max_rows=ROWS, padded=st.booleans())
def test_every_position_comes_exactly_once(
    lengths: list[int], budget: int, max_rows: int, padded: bool
) -> None:
    """Together the batches are a permutation of the positions, and none is empty."""
    batches = _batches(lengths, budget, max_rows, padded=padded)
    assert list(range(len(lengths))) == sorted(itertools.chain(*batches))
    assert all(batches)


@given(lengths=LENGTHS, budget=BUDGETS, max_rows=ROWS)
def test_a_batch_stays_under_the_budget(lengths: list[int], budget: int, max_rows: int) -> None:
    """At most `max_rows`; rows times the longest exceed the budget only for one text alone."""
    for batch in _batches(lengths, budget, max_rows):
        assert len(batch) <= max_rows
        padded = len(batch) * max(lengths[position] for position in batch)
        assert len(batch) == 1 or padded <= budget


@given(lengths=LENGTHS, budget=BUDGETS)
def test_a_varlen_batch_is_as_full_as_it_can_be(lengths: list[int], budget: int) -> None:
    """Tokens within the budget, unless one text alone exceeds it; one more would not fit."""
    # Batches come shuffled; of equally long texts the one that was given first is batched first.
    batches = _batches(lengths, budget, 1, padded=False)
    batches.sort(key=lambda batch: (-lengths[batch[0]], batch[0]))
    for batch, behind in itertools.zip_longest(batches, batches[1:], fillvalue=None):
        assert batch is not None
        tokens = sum(lengths[position] or 1 for position in batch)
        assert len(batch) == 1 or tokens <= budget
        if behind is not None:
            following = max(lengths[position] for position in behind) or 1
            assert tokens + following > budget


@given(lengths=LENGTHS.filter(bool), budget=BUDGETS, max_rows=ROWS)
def test_the_longest_come_first(lengths: list[int], budget: int, max_rows: int) -> None:
    """The first batch holds the longest texts, so that what does not fit fails at the start."""
    first = _batches(lengths, budget, max_rows)[0]
    longest = sorted(lengths, reverse=True)[: len(first)]
    assert longest == [lengths[position] for position in first]


@given(lengths=LENGTHS, budget=BUDGETS, max_rows=ROWS)
def test_batches_hold_neighbors_in_length(lengths: list[int], budget: int, max_rows: int) -> None:
    """No text stands in a batch whose longest and shortest enclose another batch's texts."""
    batches = _batches(lengths, budget, max_rows)
    spans = sorted(
        (min(lengths[position] for position in batch), max(lengths[position] for position in batch))
        for batch in batches
    )
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))


@given(lengths=LENGTHS, budget=BUDGETS)
def test_the_same_texts_give_the_same_batches(lengths: list[int], budget: int) -> None:
    """The order is random in looks only: two calls agree."""
    assert _batches(lengths, budget, 16) == _batches(lengths, budget, 16)


def test_the_order_after_the_first_is_not_by_length() -> None:
    """The time left can be told from what is done, since long and short batches alternate."""
    longest = [batch[0] for batch in _batches(list(range(500, 0, -1)), 500, 8)]
    assert longest[0] == min(longest)
    assert longest[1:] != sorted(longest[1:])


def test_a_text_over_the_budget_is_alone() -> None:
    """A text longer than the budget is encoded by itself, before the others."""
    assert _batches([3, 3, 50], 10, 8) == [[2], [0, 1]]
