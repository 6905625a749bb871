"""The table of commands, from which the program's help is written without importing them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.cli.commands import COMMANDS

# Each takes some hundredths of a second, or imports what does.
_SLOW = {"msmarco_qdrant.filters", "msmarco_qdrant.settings", "msmarco_qdrant.stores.filters"}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_table_has_the_start_of_each_help(name: str) -> None:
    """The help and the first example are those of the command."""
    command = cli.commands[name]
    examples = getattr(command, "examples", None)

    assert name == command.name
    assert COMMANDS[name].help == " ".join((command.help or "").split("\n\n")[0].split())
    assert COMMANDS[name].example == (examples[0] if examples else None)


def test_help_of_the_program_imports_no_command() -> None:
    """It answers in a tenth of a second, since commands and what they need are not imported."""
    code = (
        "import json, sys; from msmarco_qdrant.cli.app import main; main(['--help']);"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = set(json.loads(done.stderr))
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert set() == loaded & ({f"msmarco_qdrant.cli.{one.module}" for one in COMMANDS.values()})
    assert set() == loaded & (_SLOW | {"numpy", "torch", "pydantic"})
