"""The report of a mining run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from msmarco_qdrant.core.json_value import from_json_value, to_json_value
from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.train.out_folder import OutFolder

_FILE = "report.json"


@dataclass(frozen=True, slots=True)
class MineReport:
    """Counts of a mining run.

    Attributes:
        queries: Number of queries in the file.
        candidates: Number of candidates for negatives, by system.
        short: Queries with fewer than `wanted` candidates, by system; all if the collection is
            small.
        wanted: Candidates per query and system.
        without_positives: Queries that were left out, because they have no positive.
        without_query: Queries that have positives, but were not among the given queries.
        missing_positives: Positives that the first collection lacks. They are in the file, but no
            training can use them.
        seconds: Wall time of the call that completed the file; earlier ones are not counted.
    """

    queries: int
    candidates: Mapping[str, int]
    short: Mapping[str, int]
    wanted: int
    without_positives: int
    without_query: int
    missing_positives: int
    seconds: float

    def __str__(self) -> str:
        return "\n".join(_lines(self))


class StoredReport(NamedTuple):
    """The report of a complete folder, and the digest of its queries and positives."""

    report: MineReport
    inputs: str


def read_report(folder: OutFolder) -> StoredReport | None:
    """Return the report of a folder; None if it is not complete.

    Raises:
        OutputError: If it cannot be read.
    """
    value = folder.read_json(_FILE)
    if value is None:
        return None
    try:
        inputs = value.pop("inputs")
        return StoredReport(from_json_value(MineReport, value), str(inputs))
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise OutputError(
            f"{folder.path / _FILE} is not the report of a mining run: name another folder"
        ) from exc


def write_report(folder: OutFolder, report: MineReport, inputs: str) -> None:
    """Write the report, which marks the folder as complete."""
    folder.write_json(_FILE, {**to_json_value(report), "inputs": inputs})


def _lines(report: MineReport) -> Iterator[str]:
    queries = f"{report.queries:,} queries"
    yield f"{queries} mined in {report.seconds:.1f} s"
    for name, count in report.candidates.items():
        mean = f"{count:,} candidates, {count / report.queries:.1f} per query"
        short = report.short.get(name, 0)
        yield f"{name}: {mean}" + (f"; {short:,} have fewer than {report.wanted}" if short else "")
    if report.without_positives:
        yield f"left out: {report.without_positives:,} queries without a positive"
    if report.without_query:
        yield f"not used: positives of {report.without_query:,} queries that were not given"
    if report.missing_positives:
        yield f"the collection lacks {report.missing_positives:,} positives"
