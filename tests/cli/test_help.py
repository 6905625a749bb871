"""The helps: groups of options, and examples that the options accept."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import takewhile

import click
import pytest

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.cli.help import _GROUPS, Command
from tests.cli.runner import command


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, Command]]:
    """Every command that is not a group, with the words that call it."""
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from commands(one, *path, name)
        else:
            assert isinstance(one, Command), name
            yield " ".join((*path, name)), one


COMMANDS = dict(commands(cli))


@pytest.mark.parametrize("words", COMMANDS)
def test_every_help_has_examples_that_the_options_accept(words: str) -> None:
    """Each is a line of its own, with the whole command, to paste into a shell."""
    one = COMMANDS[words]
    shown = command(*words.split(), "--help").out.split("\nExamples:\n")[1].splitlines()
    assert 1 <= len(one.examples) == len(shown)
    for example, line in zip(one.examples, shown, strict=True):
        assert line == f"  msmarco-qdrant {words} {example}".rstrip()
        given = [*takewhile(lambda word: word != "|", shlex.split(example))]
        one.make_context(words, given)


@pytest.mark.parametrize(
    "name", [n for n, one in cli.commands.items() if isinstance(one, click.Group)]
)
def test_a_group_shows_an_example_of_each_subcommand(name: str) -> None:
    """The first one of each, with the whole command."""
    shown = command(name, "--help").out.split("\nExamples:\n")[1].splitlines()
    assert sorted(line.strip() for line in shown) == sorted(
        f"msmarco-qdrant {words} {one.examples[0]}".rstrip()
        for words, one in COMMANDS.items()
        if words.startswith(f"{name} ")
    )


def test_options_are_in_groups() -> None:
    """Under titles, of which the help shows those that have options."""
    shown = command("search", "--help").out
    for title in ("Store and collection", "Model", "Search", "Options", "Output"):
        assert f"\n{title}:\n" in shown
    assert "\nSource:\n" not in shown
    assert shown.index("--store") < shown.index("--mode") < shown.index("--json")


def test_every_name_of_a_group_is_an_option() -> None:
    """Otherwise an option that was renamed would leave its group."""
    contexts = [one.make_context("x", [], resilient_parsing=True) for one in COMMANDS.values()]
    params = {param.name for one in contexts for param in one.command.get_params(one)}
    named = [name for names in _GROUPS.values() for name in names]
    assert set() == {*named} - params
    assert len(named) == len({*named})
