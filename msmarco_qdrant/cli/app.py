"""The command line: parse, call, print.

Standard output has the answers, as text or with `--json` as one JSON document, which for an error
is `{"error": {"type", "message"}}`. Progress, warnings and errors go to standard error. Exit
status: 0 success, 1 failure, 2 wrong usage, 3 finished with rejects, 130 interrupted, 143
terminated.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import click

from msmarco_qdrant import __version__
from msmarco_qdrant.cli.commands import LazyGroup
from msmarco_qdrant.cli.output import (
    LogFormatter,
    Printed,
    echo,
    error_json,
    print_error,
    print_json,
)
from msmarco_qdrant.runtime.daemon_executor import has_running_calls

_FAILED, _INTERRUPTED, _TERMINATED = 1, 130, 143

_COMPLETION = """\b
To complete commands, options, files, collections and models with TAB, run
  eval "$(_MSMARCO_QDRANT_COMPLETE=bash_source msmarco-qdrant)"
and add it to ~/.bashrc; for zsh, zsh_source and ~/.zshrc.
"""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_COMPLETION,
)
@click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read variables MSMARCO_QDRANT_... from this file; the environment overrides it.  "
    "[default: .env next to a compose file of this project]",
)
@click.version_option(__version__, prog_name="msmarco-qdrant")
def cli(env_file: Path | None) -> None:  # see `command_env_file`
    """Search passages by meaning, with MS MARCO models of sentence-transformers and Qdrant.

    Try `msmarco-qdrant quickstart` first: it takes half a minute.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; one of this process ends it if interrupted."""
    # gRPC prints nothing of its own: the command reports each error once.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        status = _run(arguments)
    except SystemExit as exc:  # of SIGTERM; an unexpected error keeps its traceback
        if arguments is None and exc.code == _TERMINATED:
            _end_now(_TERMINATED)
        raise
    if arguments is None and (status == _INTERRUPTED or has_running_calls()):
        _end_now(status)
    return status


def _end_now(status: int) -> None:
    """End the process without waiting for threads, whose server may not answer."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    printed = Printed()
    try:
        status = cli.main(
            arguments,
            prog_name="msmarco-qdrant",
            standalone_mode=False,
            auto_envvar_prefix=None,
            obj=printed,
        )
    except click.ClickException as exc:
        print_error(exc)
        if _wants_json(arguments) and not printed.json:
            print_json(error_json(exc))
        return exc.exit_code
    except OSError as exc:  # for instance, standard output on a full disk
        echo(f"Error: {exc}", err=True)
        return _FAILED
    except (click.Abort, KeyboardInterrupt):
        echo("Interrupted.", err=True)
        return _INTERRUPTED
    return int(status or 0)


def _wants_json(arguments: Sequence[str] | None) -> bool:
    """Return True for `--json`, also where the rest of the command line is invalid."""
    words = sys.argv[1:] if arguments is None else arguments
    return "--json" in takewhile(lambda word: word != "--", words)
