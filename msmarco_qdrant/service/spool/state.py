"""Batch states as the JSON reports of the spool."""

from __future__ import annotations

from typing import Any

from msmarco_qdrant.core.escape import escape_surrogates
from msmarco_qdrant.service.interfaces import COUNTS, BatchReport, BatchState, RowReject, counts_of


def state_to_json(state: BatchState) -> dict[str, Any]:
    """Convert a state to a JSON object."""
    report = state.report
    return {
        "batch": state.batch,
        "state": state.state,
        **counts_of(report),
        "reason": state.reason,
        "source": escape_surrogates(state.source),
        "rejects": [{"line": row.line, "reason": row.reason} for row in report.rejects],
        "seconds": report.seconds,
        "accepted_at": state.accepted_at,
        "ended_at": state.ended_at,
    }


def state_from_json(fields: dict[str, Any]) -> BatchState:
    """Convert a JSON object of `state_to_json` to a state.

    Raises:
        KeyError: If a field is missing.
        TypeError: If a field has the wrong type.
    """
    rejects = tuple(RowReject(row["line"], row["reason"]) for row in fields["rejects"])
    counts = {name: fields[name] for name in COUNTS}
    report = BatchReport(**counts, seconds=fields["seconds"], rejects=rejects)
    names = ("batch", "state", "accepted_at", "ended_at", "reason")
    found = {name: fields[name] for name in names}
    return BatchState(**found, report=report, source=fields.get("source", ""))
