"""Running a command in the test's own process."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from msmarco_qdrant.cli.app import main


class Outcome(NamedTuple):
    """What a command left: its status and both of its streams."""

    status: int
    out: str
    err: str


def command(*arguments: str) -> Outcome:
    """Run a command where the libraries are loaded once for all tests."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main(arguments)
    return Outcome(status, out.getvalue(), err.getvalue())


@contextmanager
def standard_input(path: Path) -> Iterator[None]:
    """A file as standard input, as a shell gives it."""
    kept = os.dup(0)
    try:
        with path.open("rb") as file:
            os.dup2(file.fileno(), 0)
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
