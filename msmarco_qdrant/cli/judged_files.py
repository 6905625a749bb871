"""Files of queries with their judgments, pairs or clicks, and the folder of a training step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from msmarco_qdrant.cli.options import (
    FILE,
    LocalPath,
    refuse_unused,
)

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.evaluation import Qrels

_F = TypeVar("_F", bound=Callable[..., Any])


def file_option(name: str, text: str, *, required: bool = False) -> Callable[[_F], _F]:
    """Return an option for a file that must exist."""
    return click.option(name, type=FILE, metavar="FILE", required=required, help=text)


def out_option(content: str) -> Callable[[_F], _F]:
    """Return `--out`, the folder of a step."""
    return click.option(
        "--out",
        type=LocalPath(file_okay=False),
        required=True,
        metavar="DIR",
        help=f"Folder for {content}: a new one, or that of the same command, to resume it.",
    )


def min_grade_option(condition: str) -> Callable[[_F], _F]:
    """Return `--min-grade`, the least grade of a positive."""
    return click.option(
        "--min-grade",
        type=click.IntRange(1, 100),
        default=1,
        show_default=True,
        metavar="N",
        help=f"{condition}: the least grade of a positive.",
    )


def click_options(function: _F) -> _F:
    """Add `--clicks` and `--min-count`; check them with `check_source`."""
    clicks = file_option(
        "--clicks",
        "Instead of --queries and --qrels: a log of clicks, query<TAB>pid<TAB>count.",
    )
    least = click.option(
        "--min-count",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="With --clicks: the fewest clicks of a positive.",
    )
    return clicks(least(function))


def check_source(queries: Path | None, qrels: Path | None, clicks: Path | None) -> None:
    """Refuse anything but queries with qrels, or clicks alone."""
    has_files = queries is not None and qrels is not None
    has_one = queries is not None or qrels is not None
    if has_one == (clicks is not None) or (has_one and not has_files):
        raise click.UsageError("pass --queries FILE and --qrels FILE, or --clicks FILE")
    refuse_unused("--clicks", used=clicks is not None, options=["min_count"])


def read_judged(queries: Path, qrels: Path) -> tuple[list[Query], Qrels]:
    """Read queries and their judgments."""
    from msmarco_qdrant.evaluation import read_qrels
    from msmarco_qdrant.sources.corpus import read_queries

    return [*read_queries(str(queries))], read_qrels(str(qrels))


def read_judged_or_pairs(queries: Path, qrels: Path) -> tuple[list[Query], Qrels]:
    """Read queries and their judgments, or pairs, which have grade 1."""
    from msmarco_qdrant.sources.corpus import read_queries
    from msmarco_qdrant.train import read_positives
    from msmarco_qdrant.train.positives import has_pairs, to_qrels

    if has_pairs(str(qrels)):
        return [*read_queries(str(queries))], to_qrels(read_positives(str(qrels)))
    return read_judged(queries, qrels)


def read_optional(
    queries: Path | None, qrels: Path | None, message: str
) -> tuple[list[Query], Qrels] | tuple[None, None]:
    """Read queries and their judgments, or neither; one alone is refused with a message."""
    if queries is None and qrels is None:
        return None, None
    if queries is None or qrels is None:
        raise click.UsageError(message)
    return read_judged_or_pairs(queries, qrels)
