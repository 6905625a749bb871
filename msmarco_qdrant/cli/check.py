"""The command `check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.command_settings import open_configured_store
from msmarco_qdrant.cli.completion import complete_collections
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import json_option, refuse_unused, settings_options
from msmarco_qdrant.cli.output import print_result
from msmarco_qdrant.core.json_value import to_json_value

if TYPE_CHECKING:
    from msmarco_qdrant.collection.check import CheckReport, Finding
    from msmarco_qdrant.settings import Settings

_FAULTS = 1


@click.command(cls=Command, examples=["msmarco", "msmarco --repair"])
@click.argument("name", shell_complete=complete_collections)
@settings_options("store", "transport")
@click.option("--repair", is_flag=True, help="Repair what needs no removal.")
@click.option(
    "--yes",
    is_flag=True,
    help="With --repair: also remove foreign points and empty leftovers, and settle replicas that "
    "differ, which removes points that the replica that answers does not hold.",
)
@json_option
def check(*, name: str, settings: Settings, repair: bool, yes: bool, as_json: bool) -> int:
    """Check the collection NAME for faults. Without --repair it changes nothing.

    It reads every point with its vector. The exit status is 1 while faults are left.
    """
    from msmarco_qdrant.collection.check import check_collection

    refuse_unused("--repair", used=repair, options=["yes"])
    with open_configured_store(settings) as store:
        report = check_collection(store, name, repair=repair, remove=yes, progress=True)
    value = {**to_json_value(report), "is_sound": report.is_sound}
    print_result(value, *_report_lines(report, repair=repair), as_json=as_json)
    return 0 if report.is_sound else _FAULTS


def _report_lines(report: CheckReport, *, repair: bool) -> list[str]:
    place = f" in {report.physical}" if report.physical else ""
    lines = [f"'{report.collection}': {report.points:,} points checked{place}"]
    lines += [line for found in report.findings for line in _lines(found, repair=repair)]
    lines += [] if report.findings else ["no fault found"]
    return lines if report.graph_note is None else [*lines, f"advice: {report.graph_note}"]


def _lines(found: Finding, *, repair: bool) -> list[str]:
    examples = f", such as {'; '.join(found.examples)}" if found.examples else ""
    lines = [f"{found.kind}: {found.problem}{examples}"]
    if found.repaired:
        lines.append(f"  repaired: {found.repaired:,}")
    is_left = found.repaired < found.count
    if is_left and found.repair and (found.removes or not repair):
        lines.append(f"  {'--repair --yes' if found.removes else '--repair'} {found.repair}")
    if is_left and found.advice:
        lines.append(f"  {found.advice}")
    return lines
