"""Order of training examples and what each batch contains: decided by the seed alone.

One epoch draws, for each query, some of its positives; one example is a query with one of them. A
batch avoids a second example of the same query or with the same positive, as long as others are
left. All epochs are one sequence, so that a stopped training resumes at a batch's number.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msmarco_qdrant.train.examples import ExampleSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class TrainingPlan:
    """The examples of a whole training, in batches.

    Attributes:
        queries: int32 `(n,)`, the query of each example.
        targets: int32 `(n,)`, the number of its positive.
        batch_size: Examples of each batch but the last.
    """

    queries: NDArray[np.int32]
    targets: NDArray[np.int32]
    batch_size: int

    def __len__(self) -> int:
        return math.ceil(len(self.queries) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        count = len(self.queries)
        for begin in range(0, count, self.batch_size):
            yield [*range(begin, min(begin + self.batch_size, count))]


def plan_training(
    examples: ExampleSet,
    eligible: NDArray[np.bool_] | None,
    *,
    epochs: float,
    batch_size: int,
    max_positives: int,
    seed: int,
) -> TrainingPlan:
    """Draw the examples of each epoch, and order them.

    Args:
        examples: The queries.
        eligible: bool, one for each value of `examples.positives`: False to leave it out. None to
            leave out none.
        epochs: Number of epochs; a fraction ends within the last one.
        batch_size: Examples of a batch.
        max_positives: Positives of a query in one epoch, drawn at random if it has more.
        seed: Of the draws and of the order.
    """
    import numpy as np

    rows = examples.positives.rows.astype(np.int32)
    every = np.arange(len(rows))
    places = every if eligible is None else every[eligible]
    drawn: list[NDArray[np.int64]] = []
    for epoch in range(int(np.ceil(epochs))):
        random = np.random.default_rng([seed, epoch])
        chosen = _draw(places, rows, max_positives, random)
        share = min(1.0, epochs - epoch)
        drawn.append(chosen[: max(1, round(share * len(chosen)))])
    order = np.concatenate(drawn)
    queries, targets = rows[order], examples.positives.values[order]
    spread = np.fromiter(_spread(queries, targets, batch_size), np.int64, len(order))
    return TrainingPlan(queries[spread], targets[spread], batch_size)


def _draw(
    places: NDArray[np.int64],
    rows: NDArray[np.int32],
    max_positives: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Return at most `max_positives` random places of each row, in random order."""
    import numpy as np

    shuffled = random.permutation(places)
    grouped = shuffled[np.argsort(rows[shuffled], kind="stable")]
    starts = np.flatnonzero(np.diff(rows[grouped], prepend=-1))
    ranks = np.arange(len(grouped)) - np.repeat(starts, np.diff(starts, append=len(grouped)))
    return random.permutation(grouped[ranks < max_positives])


def _spread(
    queries: NDArray[np.int32], targets: NDArray[np.int32], batch_size: int
) -> Iterator[int]:
    """Yield the places of examples, so that those of a batch differ in query and positive."""
    rest = iter(zip(range(len(queries)), queries.tolist(), targets.tolist(), strict=True))
    waiting: deque[tuple[int, int, int]] = deque()
    while True:
        batch, later = _fill(waiting, rest, batch_size)
        for example in batch:
            yield example[0]
        if not batch:
            return
        waiting = later


def _fill(
    waiting: deque[tuple[int, int, int]],
    rest: Iterator[tuple[int, int, int]],
    batch_size: int,
) -> tuple[list[tuple[int, int, int]], deque[tuple[int, int, int]]]:
    """Take a batch of examples; return those that were passed over as well."""
    batch: list[tuple[int, int, int]] = []
    later: deque[tuple[int, int, int]] = deque()
    queries: set[int] = set()
    targets: set[int] = set()
    while len(batch) < batch_size and len(later) <= batch_size:
        example = waiting.popleft() if waiting else next(rest, None)
        if example is None:
            break
        _, query, target = example
        if query in queries or target in targets:
            later.append(example)
            continue
        queries.add(query)
        targets.add(target)
        batch.append(example)
    while later and len(batch) < batch_size:  # a repeated passage is encoded only once
        batch.append(later.popleft())
    later.extend(waiting)
    return batch, later


def draw_negatives(
    pool: NDArray[np.int32], number: int, seed: int, example: int, *, fill: bool = False
) -> NDArray[np.int32]:
    """Draw negatives of an example, without repeats.

    Args:
        pool: The candidates.
        number: How many to draw; all of a smaller pool.
        seed: The training's seed.
        example: The example's number in the plan.
        fill: Repeat candidates of a pool that is smaller.
    """
    import numpy as np

    random = np.random.default_rng([seed, 1, example])
    if len(pool) > number:
        return random.choice(pool, number, replace=False)
    if fill and len(pool):
        return np.concatenate([pool, random.choice(pool, number - len(pool))])
    return pool
