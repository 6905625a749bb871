"""Commands one after the other in one process, which loads the libraries once for all of them.

It runs as `python -m tests.docs.commands_program LINE ...` and prints the outputs as a JSON list.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout

from msmarco_qdrant.cli.app import main

QUIET = " 2> /dev/null"


def output_of_line(line: str) -> str:
    """Both streams of a command as a terminal shows them, or the first one with `2> /dev/null`."""
    shown = io.StringIO()
    errors = io.StringIO() if line.endswith(QUIET) else shown
    name, *arguments = shlex.split(line.removesuffix(QUIET))
    if name != "msmarco-qdrant":
        raise ValueError(f"the line must start with msmarco-qdrant, got {line!r}")
    with redirect_stdout(shown), redirect_stderr(errors):
        main(arguments)
    return shown.getvalue()


if __name__ == "__main__":
    print(json.dumps([output_of_line(line) for line in sys.argv[1:]]))
