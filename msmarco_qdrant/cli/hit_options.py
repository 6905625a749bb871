"""Options that the commands `search` and `similar` have in common: choice and content of hits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from msmarco_qdrant.cli.completion import complete_collections
from msmarco_qdrant.cli.options import LIMIT, refuse_unused
from msmarco_qdrant.core.search_types import Merge

_F = TypeVar("_F", bound=Callable[..., Any])

score_threshold_option = click.option(
    "--score-threshold",
    type=float,
    metavar="X",
    help="Omit hits with a lower score, as it is printed.",
)
group_by_option = click.option(
    "--group-by", metavar="FIELD", help="Only the best passage for each value of this field."
)
ef_option = click.option(
    "--ef",
    type=LIMIT,
    metavar="N",
    help="Number of candidates in the graph search.  [default: the collection's, else 128]",
)
diversity_option = click.option(
    "--diversity",
    type=click.FloatRange(0, 1),
    metavar="X",
    help="Reorder the best 100 hits so that each differs from those before it: 0 to 1.",
)
_CONTENT_OPTIONS = (
    click.option("--with-vectors", is_flag=True, help="With --json: print the vector of each hit."),
    click.option(
        "--with-meta",
        multiple=True,
        metavar="FIELD",
        help="Print only this field of meta; repeat it for several.",
    ),
    click.option("--without-meta", is_flag=True, help="Print no meta."),
    click.option("--without-text", is_flag=True, help="Print no text."),
)
_SEVERAL_OPTIONS = (
    click.option(
        "--also",
        multiple=True,
        metavar="NAME",
        shell_complete=complete_collections,
        help="Search this collection as well, of the same model, for one ranking. Repeat it for "
        "several.",
    ),
    click.option(
        "--merge",
        type=click.Choice(get_args(Merge)),
        default="scores",
        show_default=True,
        help="With --also: how the rankings become one, by scores or by ranks (rrf).",
    ),
)


def content_options(command: _F) -> _F:
    """Add the options for vectors, fields of `meta`, and text."""
    for option in reversed(_CONTENT_OPTIONS):
        command = option(command)
    return command


def several_options(command: _F) -> _F:
    """Add the options for one ranking over several collections."""
    for option in reversed(_SEVERAL_OPTIONS):
        command = option(command)
    return command


def check_vectors(*, as_json: bool) -> None:
    """Refuse vectors in text, where they would fill the screen."""
    refuse_unused("--json", used=as_json, options=["with_vectors"])


def wanted_meta(names: tuple[str, ...], *, without: bool) -> bool | list[str]:
    """Return the value of `with_meta` for the options."""
    if names and without:
        raise click.UsageError("pass either --with-meta or --without-meta")
    return [*names] if names else not without
