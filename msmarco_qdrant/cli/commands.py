"""The commands by name; the module of each is imported when it runs.

Importing all of them takes longer than any help may. So `msmarco-qdrant --help` is written from
this table alone; a test compares it with the commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import NamedTuple, cast

import click

from msmarco_qdrant.cli.group import CommandGroup
from msmarco_qdrant.cli.help import write_examples


class Entry(NamedTuple):
    """A command: its module in this package and its name there; its help's start, its example.

    Attributes:
        module: The module in `msmarco_qdrant.cli`.
        attribute: The command's name in that module.
        help: The first paragraph of its help.
        example: The words after its name in its first example; None without examples.
    """

    module: str
    attribute: str
    help: str
    example: str | None = None


COMMANDS: Mapping[str, Entry] = {
    "ingest": Entry(
        "ingest",
        "ingest",
        "Encode and store passages; create the collection if missing.",
        "passages.tsv",
    ),
    "adopt": Entry(
        "adopt",
        "adopt",
        "Encode the texts of another program's collection into one of this package.",
        "docs --store http://localhost:6333 --collection articles --model all-MiniLM-L6-v2",
    ),
    "encode": Entry(
        "encode",
        "encode",
        "Encode passages into a folder for `ingest --vectors`.",
        "passages.tsv --out vectors",
    ),
    "search": Entry(
        "search", "search", "Search for QUERY, a question or keywords.", "'how big is london' -n 3"
    ),
    "similar": Entry(
        "similar",
        "similar",
        "Search for passages similar to the passages PID, which are not among the hits.",
        "7187158 -n 3",
    ),
    "evaluate": Entry(
        "evaluate",
        "evaluate",
        "Measure the search quality of a collection.",
        "--queries queries.tsv --qrels qrels.txt --mode dense --mode hybrid",
    ),
    "get": Entry(
        "passages",
        "get",
        "Show the passage PID. Write '--' before a PID that begins with a dash.",
        "7187158",
    ),
    "count": Entry(
        "passages", "count", "Count the passages of a collection, or those that match a filter.", ""
    ),
    "facets": Entry(
        "passages",
        "facets",
        "Count the passages of each value of the meta field FIELD, the most frequent first.",
        "lang",
    ),
    "list": Entry(
        "passages",
        "list_",
        "List some passages of a collection, in the order of ids or of a field.",
        "-n 3",
    ),
    "delete": Entry(
        "passages",
        "delete",
        "Delete passages by pid, or all that match a filter. Missing passages are not an error.",
        "7187158 7187157",
    ),
    "export": Entry(
        "passages", "export", "Export every passage to FILE, for `ingest`.", "passages.jsonl.gz"
    ),
    "serve": Entry(
        "serve",
        "serve",
        "Serve search and ingest over HTTP until SIGTERM or Control-C.",
        "--model all-MiniLM-L6-v2",
    ),
    "spool": Entry(
        "spool", "spool", "Show, requeue or remove the batches of a sidecar that failed."
    ),
    "mcp": Entry(
        "mcp",
        "mcp",
        "Serve search to assistants by the Model Context Protocol (MCP).",
        "--collection msmarco",
    ),
    "mteb": Entry(
        "mteb",
        "mteb",
        "Run retrieval tasks of MTEB or BEIR through a store.",
        "NFCorpus --model all-MiniLM-L6-v2",
    ),
    "improve": Entry(
        "improve",
        "improve",
        "Train a collection's model on your own queries, and measure it against the old one.",
        "--queries queries.tsv --qrels qrels.txt --out improved",
    ),
    "collections": Entry(
        "collections", "collections", "List the collections of a store.", "--store ./qdrant_data"
    ),
    "info": Entry(
        "collections", "info", "Show the size, index, model and settings of each collection.", ""
    ),
    "check": Entry(
        "check",
        "check",
        "Check the collection NAME for faults. Without --repair it changes nothing.",
        "msmarco",
    ),
    "optimize": Entry(
        "collections",
        "optimize",
        "Build the index over vectors written since the last build.",
        "--collection msmarco",
    ),
    "index": Entry(
        "index", "index", "Add, remove or list the payload indexes that make filters fast."
    ),
    "migrate": Entry("migrate", "migrate", "Migrate a collection while it is in use."),
    "backup": Entry(
        "backup",
        "backup",
        "Back up the collection NAME with its vectors and settings.",
        "msmarco --out backup",
    ),
    "restore": Entry("backup", "restore", "Restore a collection from the backup DIR.", "backup"),
    "drop": Entry(
        "collections", "drop", "Drop the collection NAME with all its passages.", "msmarco --yes"
    ),
    "mine": Entry(
        "mine",
        "mine",
        "Search for candidates for hard negatives.",
        "--queries queries.tsv --qrels qrels.txt --out mined",
    ),
    "judge": Entry(
        "judge",
        "judge",
        "Score positives and mined candidates with a stronger model.",
        "--judge ms-marco-electra-base --queries train.tsv --negatives mined "
        "--dev-queries dev.tsv --dev-qrels dev.txt --out judged",
    ),
    "choose": Entry(
        "choose",
        "choose",
        "Choose hard negatives among mined candidates.",
        "--negatives mined --scores judged",
    ),
    "train": Entry(
        "train",
        "train",
        "Train a bi-encoder or a cross-encoder on the passages of a collection.",
        "--queries queries.tsv --negatives chosen --out model",
    ),
    "models": Entry(
        "models", "models", "List the published models with their published figures.", ""
    ),
    "quickstart": Entry(
        "ingest",
        "quickstart",
        "Ingest a sample of 300 passages and search it.",
        "--store demo --model all-MiniLM-L6-v2",
    ),
}
"""The commands of `msmarco-qdrant`."""


class LazyCommands(Mapping[str, click.Command]):
    """The commands of a table, each imported on first use."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> click.Command:
        entry = self._entries[name]
        found: click.Command = getattr(
            import_module(f"msmarco_qdrant.cli.{entry.module}"), entry.attribute
        )
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class LazyGroup(CommandGroup):
    """The group of `COMMANDS`; its help imports none of them."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # click's own
        # click changes it only to add commands, which the table has already.
        self.commands = cast("MutableMapping[str, click.Command]", LazyCommands(COMMANDS))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the start of each command's help."""
        names = self.list_commands(ctx)
        width = formatter.width - 6 - max(map(len, names))
        rows = [
            (name, click.Command(name, help=COMMANDS[name].help).get_short_help_str(width))
            for name in names
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_examples(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first example of each command."""
        entries = [(name, COMMANDS[name].example) for name in self.list_commands(ctx)]
        examples = [f"{name} {example}" for name, example in entries if example is not None]
        write_examples(formatter, ctx.command_path, examples)
