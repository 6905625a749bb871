"""What became of a batch, as values and as the JSON that lies beside it in the spool."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

BatchId: TypeAlias = str
"""32 hexadecimal digits."""

Phase: TypeAlias = Literal["queued", "working", "done", "failed"]

COUNTS: Final = ("written", "unchanged", "rejected", "deleted", "superseded")
"""What a report counts, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class RowReject:
    """A row of a batch that could not be applied.

    Attributes:
        line: Its line or row in the batch, counted from 1.
        reason: Why, as a sentence for people.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a batch did.

    After a crash, or an attempt that failed, what was written before may count as unchanged, and
    what was deleted before not at all.

    Attributes:
        written: Passages stored or rewritten.
        unchanged: Passages that were there already, with the same text and meta.
        rejected: Rows that could not be applied.
        deleted: Passages that were there and are removed.
        superseded: Rows that a later row of the same pid made void.
        seconds: Wall time of the attempt that succeeded, or of the last.
        rejects: The first hundred of the rejected rows.
    """

    written: int = 0
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0
    superseded: int = 0
    seconds: float = 0.0
    rejects: tuple[RowReject, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchState:
    """Where a batch is.

    Attributes:
        batch: Its id.
        state: "queued", "working", "done" (what it wrote is durable and found) or "failed".
        accepted_at: When it was accepted, in seconds since 1970; after a restart, when it was
            queued again.
        ended_at: When it was done or failed, None before.
        report: What it did; all zero before it has ended.
        reason: Why it failed, "" otherwise.
    """

    batch: BatchId
    state: Phase
    accepted_at: float
    ended_at: float | None = None
    report: BatchReport = BatchReport()
    reason: str = ""

    def ended(self, state: Phase, report: BatchReport, reason: str, now: float) -> BatchState:
        """The same batch at its end."""
        return replace(self, state=state, report=report, reason=reason, ended_at=now)


def escape_surrogates(text: str) -> str:
    """A reason as any encoding takes it: half a character, which it may quote, stays escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def counts_of(report: BatchReport) -> dict[str, int]:
    """What a report counts, by the names of `COUNTS`, in their order."""
    return {name: getattr(report, name) for name in COUNTS}


def state_to_json(state: BatchState) -> dict[str, Any]:
    """A state as a JSON object."""
    report = state.report
    return {
        "batch": state.batch,
        "state": state.state,
        **counts_of(report),
        "reason": state.reason,
        "rejects": [{"line": row.line, "reason": row.reason} for row in report.rejects],
        "seconds": report.seconds,
        "accepted_at": state.accepted_at,
        "ended_at": state.ended_at,
    }


def state_from_json(fields: dict[str, Any]) -> BatchState:
    """What `state_to_json` made.

    Raises:
        KeyError: If something is missing.
        TypeError: If something is of another type.
    """
    rejects = tuple(RowReject(row["line"], row["reason"]) for row in fields["rejects"])
    counts = {name: fields[name] for name in COUNTS}
    report = BatchReport(**counts, seconds=fields["seconds"], rejects=rejects)
    return BatchState(
        fields["batch"],
        fields["state"],
        fields["accepted_at"],
        fields["ended_at"],
        report,
        fields["reason"],
    )
