"""Commands in the process of a test, and a store filled by one."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from msmarco_qdrant.cli.app import main


class Outcome(NamedTuple):
    """The status of a command and both of its streams."""

    status: int
    out: str
    err: str


SAMPLE = 40  # passages of the sample in a `Place`
EXTRA = [
    {
        "_id": "kestrel",
        "title": "Kestrel",
        "text": "The kestrel is a small falcon that hovers in the wind to hunt voles.",
        "lang": "en",
        "year": 2023,
        "checked": True,
        "rating": 4.5,
    },
    {
        "_id": "owl",
        "text": "The barn owl is a bird that hunts voles by night, in silence.",
        "lang": "en",
        "year": 2024,
        "checked": False,
        "rating": 4,
    },
    {
        "_id": "bussard",
        "text": "Der Bussard ist ein Vogel, der am Tag M\u00e4use jagt.",
        "lang": "de",
        "year": 2024,
        "checked": False,
        "meta": {"place": {"country": "DE"}},
    },
]


class Place(NamedTuple):
    """A filled store, the sources it was filled from, and the outcome of the command."""

    store: str
    sample: str
    extra: str
    first: Outcome


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
