"""The command group `spool`: batches of a sidecar that failed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.cli.command_settings import command_env_file
from msmarco_qdrant.cli.group import CommandGroup
from msmarco_qdrant.cli.options import LocalPath, json_option
from msmarco_qdrant.cli.output import echo, print_json, print_result
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.service.interfaces import BatchState
    from msmarco_qdrant.service.spool.failed import FailedBatch, FailedBatches

_spool_option = click.option(
    "--spool",
    type=LocalPath(file_okay=False),
    metavar="DIR",
    help="The spool of the sidecar.  [default: MSMARCO_QDRANT_SPOOL or qdrant_spool]",
)


@click.group(cls=CommandGroup)
def spool() -> None:
    """Show, requeue or remove the batches of a sidecar that failed.

    It works while the sidecar runs and when it does not.
    """


@spool.command("list", examples=["--spool qdrant_spool"])
@_spool_option
@json_option
def list_(*, spool: Path | None, as_json: bool) -> None:
    """List the failed batches with their reasons, the oldest first."""
    found = _open(spool).list()
    if as_json:
        print_json([_to_json(batch) for batch in found])
        return
    for batch in found:
        echo(*_summary(batch))
    if not found:
        echo("no failed batches")


@spool.command(examples=["0f3c9a"])
@click.argument("batch")
@_spool_option
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Show at most N rows: the rejected ones, or the first.",
)
@json_option
def show(*, batch: str, spool: Path | None, rows: int, as_json: bool) -> None:
    """Show a failed batch: its reason, its counts and its rows."""
    from msmarco_qdrant.service.spool.failed import cut_text

    batches = _open(spool)
    lines = batches.rows(batch, rows)
    (found,) = (one for one in batches.list() if one.id == batch)
    if as_json:
        print_json({**_to_json(found), "rows": to_json_value(lines)})
        return
    echo(*_summary(found))
    if found.state is not None:
        counts = _counts(found.state)
        echo("  " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    for row in lines:
        echo(f"  row {row.line}: {row.reason}".rstrip(": "))
        if row.text:
            echo(f"    {cut_text(row.text)}")


@spool.command(examples=["--all"])
@click.argument("batches", nargs=-1, metavar="BATCH...")
@_spool_option
@click.option("--all", "every", is_flag=True, help="Requeue every failed batch.")
@json_option
def requeue(*, batches: tuple[str, ...], spool: Path | None, every: bool, as_json: bool) -> None:
    """Apply failed batches again, after all that wait now.

    A passage that was written later by another batch gets the text of the requeued one.
    """
    failed = _open(spool)
    ids = _chosen(failed, batches, every=every, with_file=True)
    failed.requeue(ids)
    lines = [f"requeued: {id_}" for id_ in ids] or ["no failed batches"]
    print_result({"requeued": ids}, *lines, as_json=as_json)


@spool.command(examples=["--all --yes"])
@click.argument("batches", nargs=-1, metavar="BATCH...")
@_spool_option
@click.option("--all", "every", is_flag=True, help="Remove every failed batch.")
@click.option("--yes", is_flag=True, help="Confirm the removal.")
@json_option
def purge(
    *, batches: tuple[str, ...], spool: Path | None, every: bool, yes: bool, as_json: bool
) -> None:
    """Remove failed batches, with their passages and reports."""
    failed = _open(spool)
    ids = _chosen(failed, batches, every=every)
    if ids and not yes:
        raise UsageError(
            f"nothing was removed: {len(ids):,} failed {'batch' if len(ids) == 1 else 'batches'} "
            "would be, with all passages that only they contain; pass --yes to confirm"
        )
    failed.purge(ids)
    lines = [f"removed: {id_}" for id_ in ids] or ["no failed batches"]
    print_result({"removed": ids}, *lines, as_json=as_json)


def _open(given: Path | None) -> FailedBatches:
    from msmarco_qdrant.service.settings import SidecarSettings
    from msmarco_qdrant.service.spool.failed import FailedBatches
    from msmarco_qdrant.settings import load_as

    values = {} if given is None else {"spool": str(given)}
    return FailedBatches(load_as(SidecarSettings, values, command_env_file()).spool)


def _chosen(
    failed: FailedBatches, ids: tuple[str, ...], *, every: bool, with_file: bool = False
) -> list[str]:
    """Return the ids of the chosen batches, each once; of all, perhaps only those with a file.

    Raises:
        UsageError: If neither or both of ids and --all are given, or one is not a failed batch.
    """
    if bool(ids) == every:
        raise UsageError("either the ids of failed batches or --all must be given")
    for id_ in ids:
        failed.check(id_)
    if not every:
        return list(dict.fromkeys(ids))
    found = (batch for batch in failed.list() if not batch.is_requeued)
    return [batch.id for batch in found if batch.size is not None or not with_file]


def _to_json(batch: FailedBatch) -> dict[str, Any]:
    state = batch.state
    report: dict[str, Any] = (
        {}
        if state is None
        else {
            "reason": state.reason,
            "accepted_at": state.accepted_at,
            "ended_at": state.ended_at,
            **_counts(state),
            "rejects": to_json_value(state.report.rejects),
        }
    )
    return {
        "batch": batch.id,
        "form": batch.form,
        "bytes": batch.size,
        "requeued": batch.is_requeued,
        **report,
    }


def _counts(state: BatchState) -> dict[str, int]:
    from msmarco_qdrant.service.interfaces import counts_of

    return counts_of(state.report)


def _summary(batch: FailedBatch) -> tuple[str, str]:
    from msmarco_qdrant.service.spool.failed import cut_text

    state = batch.state
    ended = state.ended_at if state else None
    time = f"{datetime.fromtimestamp(ended, UTC):%Y-%m-%d %H:%M:%S} UTC" if ended else "no time"
    reason = cut_text(state.reason) if state else "its report is missing or damaged"
    if batch.is_requeued:
        reason = "requeued; waits for the sidecar"
    size = "without its file" if batch.size is None else f"{batch.size:,} bytes"
    return f"{batch.id}  {time}  {batch.form}, {size}", f"  {reason}"
