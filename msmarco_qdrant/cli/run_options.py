"""Options of commands that search for queries: modes, depth, measures and a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

import click

from msmarco_qdrant.cli.completion import complete_rerankers
from msmarco_qdrant.cli.options import LIMIT
from msmarco_qdrant.core.search_types import SearchMode

_F = TypeVar("_F", bound=Callable[..., Any])


def mode_option(help_text: str) -> Callable[[_F], _F]:
    """Make `--mode`."""
    return click.option(
        "--mode",
        type=click.Choice(get_args(SearchMode)),
        default="dense",
        show_default=True,
        help=help_text,
    )


def modes_option(
    help_text: str, name: str = "--mode", default: Sequence[str] = ("dense",)
) -> Callable[[_F], _F]:
    """Make an option for several modes; the command gets those of `--mode` as `modes`."""
    return click.option(
        name,
        f"{name.removeprefix('--').replace('-', '_')}s",
        type=click.Choice(get_args(SearchMode)),
        multiple=True,
        default=default,
        show_default=True,
        help=help_text,
    )


def depth_option(help_text: str) -> Callable[[_F], _F]:
    """Make `--depth`, the number of candidates."""
    return click.option(
        "--depth", type=LIMIT, default=100, show_default=True, metavar="N", help=help_text
    )


def measures_option(help_text: str) -> Callable[[_F], _F]:
    """Make `--measures`."""
    return click.option(
        "--measures",
        metavar="NAMES",
        default="nDCG@10 RR@10 R@100",
        show_default=True,
        help=f"Names as in ir_measures. {help_text}",
    )


def judge_option(help_text: str, *, required: bool = False) -> Callable[[_F], _F]:
    """Make `--judge`."""
    return click.option(
        "--judge",
        metavar="NAME_OR_DIR",
        required=required,
        shell_complete=complete_rerankers,
        help=help_text,
    )
