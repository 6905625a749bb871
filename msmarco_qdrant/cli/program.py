"""The words that start this program, for commands in messages that a user can paste."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

import click

NAME = "msmarco-qdrant"
_MODULE = "msmarco_qdrant"


@cache
def program() -> str:
    """Return the program as this process was started, quoted for a POSIX shell.

    It is the name alone if that is the same file on the user's PATH, else the path as typed, such
    as `.venv/bin/msmarco-qdrant`.
    """
    started = Path(sys.argv[0])
    if started.name == "__main__.py" and started.parent.name == _MODULE:
        is_found = shutil.which("python") == sys.executable
        return f"{'python' if is_found else shlex.quote(sys.executable)} -m {_MODULE}"
    if started.stem != NAME:  # called from Python
        return NAME
    found = shutil.which(NAME)
    is_found = found is not None and started.exists() and Path(found).samefile(started)
    return NAME if is_found else shlex.quote(str(started))


def given_env_file() -> Path | None:
    """Return the value of `--env-file`."""
    context = click.get_current_context(silent=True)
    found: Path | None = context.find_root().params.get("env_file") if context else None
    return found


def as_typed(text: str) -> str:
    """Return a text whose commands start as this one does, also with its `--env-file`."""
    words, path = program(), given_env_file()
    if path is not None:
        words += f" --env-file {shlex.quote(str(path))}"
    return re.sub(rf"(^|`){NAME} (?!--env-file)", lambda found: f"{found[1]}{words} ", text)
