"""The order of examples, the draws of positives and negatives, and what a batch contains."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from msmarco_qdrant.train import MinedQuery
from msmarco_qdrant.train.batches import TrainingPlan, draw_negatives, plan_training
from msmarco_qdrant.train.examples import ExampleSet, build_examples, collect_queries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUERIES = 40
EACH = 5


def example_set(tmp_path: Path, mined: list[MinedQuery] | None = None) -> ExampleSet:
    """Queries with five positives each; every third shares one with the query before it."""
    mined = mined or [
        MinedQuery(f"q{row}", tuple(f"p{row - (row % 3 == 2)}-{one}" for one in range(EACH)), {})
        for row in range(QUERIES)
    ]
    collected = collect_queries(mined, {one.qid: one.qid for one in mined})
    return build_examples(
        collected, lambda pids: {pid: f"text of {pid}" for pid in pids}, tmp_path / "texts"
    )


def plan(examples: ExampleSet, **options: Any) -> TrainingPlan:
    """Return a plan of every positive."""
    given = {"epochs": 1.0, "batch_size": 8, "max_positives": 16, "seed": 0, **options}
    return plan_training(examples, all_of(examples), **given)


def all_of(examples: ExampleSet) -> NDArray[np.bool_]:
    """Return True for each positive."""
    import numpy as np

    return np.ones(len(examples.positives.values), bool)


def test_an_epoch_has_each_pair_once_in_full_batches(tmp_path: Path) -> None:
    """The order differs by epoch and by seed."""
    planned = plan(example_set(tmp_path), epochs=2)
    pairs = [*zip(planned.queries.tolist(), planned.targets.tolist(), strict=True)]
    assert {*Counter(pairs).values()} == {2}
    assert len(pairs) == 2 * QUERIES * EACH
    assert [len(one) for one in planned] == [8] * (len(pairs) // 8)
    assert len(planned) == 50
    other = plan(example_set(tmp_path), epochs=2, seed=1)
    assert other.queries.tolist() != planned.queries.tolist()


def test_batches_repeat_no_query_and_no_positive_while_others_are_left(tmp_path: Path) -> None:
    """Only the last batches, when few queries are left, may."""
    planned = plan(example_set(tmp_path))
    batches = [*planned]
    for batch in batches[:-4]:
        assert len({*planned.queries[batch]}) == len({*planned.targets[batch]}) == len(batch)


@pytest.mark.parametrize(("epochs", "pairs"), [(1, 80), (0.5, 40), (2.25, 180), (0.001, 1)])
def test_positives_are_drawn_and_epochs_may_end_early(
    tmp_path: Path, epochs: float, pairs: int
) -> None:
    """Each query has at most two of its five positives in an epoch."""
    planned = plan(example_set(tmp_path), epochs=epochs, max_positives=2)
    assert len(planned.queries) == pairs
    assert max(Counter(planned.queries.tolist()).values()) <= 2 * max(1, round(epochs + 0.5))


def test_later_epochs_draw_other_positives(tmp_path: Path) -> None:
    """So a query with many positives trains on all of them in time."""
    planned = plan(example_set(tmp_path), epochs=10, max_positives=1)
    seen = {*zip(planned.queries.tolist(), planned.targets.tolist(), strict=True)}
    assert len(seen) > 3 * QUERIES


@pytest.mark.parametrize(
    ("pool", "number", "fill", "expected"),
    [(range(9), 4, False, 4), (range(2), 4, False, 2), (range(2), 4, True, 4), ((), 4, True, 0)],
)
def test_negatives_are_drawn_without_repeats(
    pool: Any, number: int, fill: bool, expected: int
) -> None:
    """The seed and the example decide; a small pool is repeated only on demand."""
    import numpy as np

    candidates = np.array([*pool], np.int32)
    drawn = [
        draw_negatives(candidates, number, 0, example, fill=fill).tolist() for example in (1, 1, 2)
    ]
    assert len(drawn[0]) == expected
    assert drawn[0] == drawn[1]
    assert {*drawn[0]} <= {*pool}
    if expected <= len(pool):
        assert len({*drawn[0]}) == expected


def test_equal_texts_are_one_passage_and_never_negatives(tmp_path: Path) -> None:
    """A copy of a positive under another pid is no negative of its query."""
    mined = [MinedQuery("q", ("p", "p2"), {"a": ("copy", "n1"), "b": ("n2", "n1", "lost")})]
    texts = {"p": "same", "copy": "same", "p2": "second", "n1": "x", "n2": "y"}
    collected = collect_queries(mined, {"q": "how"})
    examples = build_examples(
        collected, lambda pids: {pid: texts[pid] for pid in pids if pid in texts}, tmp_path / "t"
    )
    shown = [examples.passages[int(one)] for one in examples.negatives[0]]
    assert shown == ["y", "x"]  # by rank, of both systems
    assert [examples.passages[int(one)] for one in examples.positives[0]] == ["same", "second"]
    assert examples.counts.passages == 4
    assert examples.counts.missing_passages == 1
    again = build_examples(collected, lambda _: {}, tmp_path / "t")  # reads what is written
    assert again.negatives[0].tolist() == examples.negatives[0].tolist()
