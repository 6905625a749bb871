"""The command `choose`: hard negatives among mined candidates."""

from __future__ import annotations

from pathlib import Path

import click

from msmarco_qdrant.cli.completion import complete_files
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    LocalPath,
    json_option,
)
from msmarco_qdrant.cli.output import echo_text, print_json, print_result
from msmarco_qdrant.cli.signals import exit_on_sigterm
from msmarco_qdrant.core.json_value import to_json_value

_PATH = LocalPath()
_ALL = 0


@click.command(
    cls=Command,
    examples=[
        "--negatives mined --scores judged",
        "--negatives mined --scores judged --strategy relative:0.95 --out chosen",
        "--negatives mined --strategy ranks:10-100 --number 8 --out chosen",
    ],
)
@click.option(
    "--negatives",
    type=_PATH,
    metavar="FILE_OR_DIR",
    required=True,
    shell_complete=complete_files,
    help="Mined candidates: the folder of `mine`, or a file of its form.",
)
@click.option(
    "--scores",
    type=_PATH,
    metavar="FILE_OR_DIR",
    shell_complete=complete_files,
    help="Scores of positives and candidates, as `judge` writes them.",
)
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    metavar="RULES",
    help="Rules joined by commas: ranks:FIRST-LAST, max-score:S, margin:M, relative:SHARE, "
    "to:lowest, to:median or to:highest positive, and random or top. Repeat it to compare "
    "strategies.  [default: several common ones; random with --out]",
)
@click.option(
    "--number",
    type=click.IntRange(min=_ALL),
    default=4,
    show_default=True,
    metavar="N",
    help="Negatives of each query at most; 0 for all that the rules allow.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of random.",
)
@click.option(
    "--promote-above",
    type=float,
    metavar="SCORE",
    help="Make candidates that score this or more positives of their query.",
)
@click.option(
    "--out",
    type=LocalPath(file_okay=False),
    metavar="DIR",
    help="Write the negatives of one strategy to this folder. Without it, print a table of what "
    "each strategy would keep.",
)
@json_option
def choose(
    *,
    negatives: Path,
    scores: Path | None,
    strategies: tuple[str, ...],
    number: int,
    seed: int,
    promote_above: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Choose hard negatives among mined candidates.

    A candidate must meet all rules of a strategy. The rules max-score, margin and relative compare
    scores: relative:0.95 allows candidates that score at most 95 % of the positive, of several
    positives the lowest.
    """
    from msmarco_qdrant.train import choose_negatives, compare_strategies, strategies_table

    if out is not None and len(strategies) > 1:
        raise click.UsageError(f"--out needs one --strategy, got {len(strategies)}")
    count = None if number == _ALL else number
    with exit_on_sigterm():
        if out is not None:
            report = choose_negatives(
                negatives,
                out,
                *strategies,
                scores=scores,
                number=count,
                seed=seed,
                promote_above=promote_above,
                progress=True,
            )
            print_result(to_json_value(report), *str(report).split("; "), as_json=as_json)
            return
        reports = compare_strategies(
            negatives,
            strategies or None,
            scores=scores,
            number=count,
            seed=seed,
            promote_above=promote_above,
            progress=True,
        )
    if as_json:
        print_json(to_json_value(reports))
    else:
        echo_text(strategies_table(reports))
