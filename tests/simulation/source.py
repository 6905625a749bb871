"""A random source and collection, and what an ingest must make of them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.stores.payload import payload_of, point_id
from tests.simulation.server import Payloads

_FIRST_SEQ = 10**18  # ahead of the simulated clocks, as after a clock was set back


@dataclass(frozen=True)
class Case:
    """A source in splits, and the collection before the ingest.

    Attributes:
        splits: The rows of each split; None for one that cannot be read.
        before: The points of the collection.
        expected: Pid and text of every passage after the ingest.
        passages: The number of passages of the source.
        rejects: Split and row of each row that does not become a passage.
    """

    splits: tuple[tuple[Passage | None, ...], ...]
    before: Payloads
    expected: dict[str, str]
    passages: int
    rejects: list[tuple[int, int]]


def draw_case(draw: Random, least_pid: int = 0) -> Case:
    """Draw a source with repeats and damaged rows, of which a part is stored already.

    Its pids and those of the stored passages are less than 1,000 above the least one.
    """
    pids = draw.randrange(4, 40)
    splits = tuple(
        tuple(
            None if draw.random() < 0.06 else _passage(least_pid + draw.randrange(pids), split, row)
            for row in range(draw.randrange(12))
        )
        for split in range(draw.randrange(1, 7))
    )
    first: dict[str, Passage] = {}
    rejects = []
    for split, rows in enumerate(splits):
        for row, passage in enumerate(rows):
            if passage is None or passage.pid in first:
                rejects.append((split, row))
            else:
                first[passage.pid] = passage
    before = _draw_before(draw, first, least_pid + 900) if draw.random() < 0.6 else {}
    stored = {payload["pid"]: payload["text"] for payload in before.values()}
    expected = stored | {pid: passage.text for pid, passage in first.items()}
    return Case(splits, before, expected, len(first), rejects)


def _passage(pid: int, split: int, row: int) -> Passage:
    return Passage(str(pid), f"{pid} in row {row} of split {split}")


def _draw_before(draw: Random, first: dict[str, Passage], others: int) -> Payloads:
    """Draw stored passages: unchanged ones, ones with another text, and others."""
    numbers = range(others, others + draw.randrange(4))
    chosen = [Passage(str(number), "another") for number in numbers]
    for passage in first.values():
        kind = draw.random()
        if kind < 0.3:
            chosen.append(passage)
        elif kind < 0.5:
            chosen.append(Passage(passage.pid, "an earlier text"))
    return {
        point_id(passage.pid): payload_of(passage, _FIRST_SEQ + number)
        for number, passage in enumerate(chosen)
    }
