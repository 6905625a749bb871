"""Batches that are applied together: one write for the passages of all of them.

A write costs the same for ten passages as for a hundred, so batches that wait share one. No two of
them have a row of the same pid: each has the effect and the report that it would have alone, and
the order of their rows does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import StageTiming
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.ingest.upsert import Outcome
from msmarco_qdrant.service.interfaces import BatchReport
from msmarco_qdrant.service.spool.directory import OPERATIONS
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.worker.apply import BatchAttempt, BatchWriter

MOST_BATCHES = 64
MOST_BYTES = 1 << 20
"""Most batches, and bytes of their files, that are leased together."""


@dataclass(frozen=True, slots=True)
class Member:
    """A batch of a group, its attempt and its passages."""

    batch: Batch
    attempt: BatchAttempt
    passages: list[Passage]


def may_share(batch: Batch) -> bool:
    """Return True if a batch may be applied with others: it came by HTTP, and is small."""
    return batch.size <= MOST_BYTES and batch.name.form == OPERATIONS


def read_group(
    batches: Iterable[Batch], attempt: Callable[[Batch], BatchAttempt], most: int
) -> list[Member]:
    """Read the first batches as far as they can be applied together.

    Args:
        batches: The batches, in their order.
        attempt: Returns the attempt at a batch.
        most: Most passages.

    Returns:
        The batches before the first one with a pid of an earlier one, with too many passages, or
        that cannot be read.
    """
    members: list[Member] = []
    pids: set[str] = set()
    for batch in batches:
        if not may_share(batch):
            break
        try:
            member, own = _read(batch, attempt(batch))
        except MsmarcoQdrantError:
            break  # its own attempt fails the same way, and is reported
        most -= len(member.passages)
        if most < 0 or not pids.isdisjoint(own):
            break
        members.append(member)
        pids |= own
    return members


def _read(batch: Batch, attempt: BatchAttempt) -> tuple[Member, set[str]]:
    """Read a batch, and all of its pids."""
    content = attempt.read()
    passages = [*content.writes()] if content.passages else []
    deleted = content.deletes() if content.deletions else ()
    return Member(batch, attempt, passages), {*(one.pid for one in passages), *deleted}


def write_group(
    members: Sequence[Member],
    writer: BatchWriter,
    on_written: Callable[[int], None],
    go_on: Callable[[], None],
) -> Iterator[tuple[Batch, BatchReport, Sequence[StageTiming]]]:
    """Write the passages of all batches at once, then apply the deletions of each.

    Args:
        members: The batches.
        writer: Writes to the collection.
        on_written: Called with the number of passages that were written.
        go_on: Called during the write; an error it raises ends the write.

    Yields:
        Each batch with its report once its rows are durable; the first has the stage timings.

    Raises:
        MsmarcoQdrantError: If the batches that were not yielded could not be applied.
    """
    passages = [passage for member in members for passage in member.passages]
    outcomes: Sequence[Outcome] = ()
    stages: Sequence[StageTiming] = ()
    if passages:
        outcomes, stages = writer.write_together(passages, on_written, go_on)
    left = iter(outcomes)
    for member in members:
        member.attempt.record([*islice(left, len(member.passages))])
    for member in members:
        yield member.batch, member.attempt.finish(), stages
        stages = ()
