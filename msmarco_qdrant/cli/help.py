"""Commands whose help has groups of options, and examples to paste."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from msmarco_qdrant.cli.output import drop_output
from msmarco_qdrant.cli.program import as_typed

_OTHER = "Options"
_GROUPS = {
    "Store and collection": ["store", "transport", "collection", "wait_index"],
    "Model": [
        *("model", "old_model", "query_prompt", "passage_prompt", "device"),
        *("precision", "compiled"),
    ],
    "Source": [
        *("vectors", "sources", "format", "pid_field", "text_field", "title_field"),
        *("skip_field", "rejects", "allow_rejects", "workers"),
    ],
    "Search": [
        *("mode", "fusion", "dense_weight", "reranker", "rerank_depth", "filters", "where"),
        *("group_by", "ef", "oversampling", "exact"),
    ],
    _OTHER: [],
    "Output": ["as_json", "run", "report"],
}
"""Names of parameters by the title of their group; any other is among the options."""
_GROUP_OF = {name: title for title, names in _GROUPS.items() for name in names}


class Command(click.Command):
    """A command with grouped options and examples in its help.

    Args:
        examples: The words after the command's name, as in a shell; one line each.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Parse the command line; `--help` into a closed pipe is success."""
        try:
            return super().make_context(*args, **options)
        except BrokenPipeError:
            drop_output(sys.stdout)
            raise click.exceptions.Exit(0) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, by their groups."""
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in _GROUPS}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx)
            if row is not None and not isinstance(param, click.Argument):
                rows[_GROUP_OF.get(param.name or "", _OTHER)].append(row)
        for title, shown in rows.items():
            if shown:
                with formatter.section(title):
                    formatter.write_dl(shown)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, one line each, also if it is longer than the terminal."""
        write_examples(formatter, ctx.command_path, self.examples)
        super().format_epilog(ctx, formatter)


def write_examples(formatter: click.HelpFormatter, path: str, examples: Sequence[str]) -> None:
    """Write a section with command lines that begin with `path`; nothing without any."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                line = as_typed(f"{path} {example}".rstrip())
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
