"""Rejects of a distributed run are passed on as by one process."""

from __future__ import annotations

from pathlib import Path

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.distributed.rejects import OrderedRejects
from msmarco_qdrant.distributed.split_files import SplitFiles
from msmarco_qdrant.sources.rejects import RejectCount


def test_rejects_are_passed_on_in_the_order_of_the_source(tmp_path: Path) -> None:
    """Those of a split wait for all splits before it; those of other attempts are dropped."""
    seen: list[Reject] = []
    kept = SplitFiles(tmp_path)
    for number, attempt in [(5, 1), (0, 1), (0, 2), (3, 1)]:
        kept.add_rejects(number, attempt, [Reject("f", number, f"attempt {attempt}", b"", 0)])
    rejects, counts = OrderedRejects([0, 3, 5, 6], kept, RejectCount(seen.append)), []
    for number, attempt in [(5, 1), (0, 2), (3, 1), (6, 1)]:
        rejects.finish(number, attempt)
        counts.append(len(seen))

    assert [0, 1, 3, 3] == counts
    assert [(0, "attempt 2"), (3, "attempt 1"), (5, "attempt 1")] == [
        (reject.line, reject.reason) for reject in seen
    ]
    assert [] == [*tmp_path.iterdir()]
