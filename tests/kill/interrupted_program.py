"""An ingest that a test interrupts.

It ingests 128 passages, prints a line for each written window, waits for a line on standard input,
and then ingests more than it can.

Usage: python interrupted_program.py STORE
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.testing import HashingEncoder

WINDOW = 64


def passages() -> Iterator[Passage]:
    """Two windows, and after a line of input many more."""
    for number in count():
        if number == 2 * WINDOW:
            sys.stdin.readline()
            print("reading on", flush=True)
        yield Passage(str(number), f"text number {number}")


if __name__ == "__main__":
    ingest_passages(
        passages(),
        sys.argv[1],
        encoder=HashingEncoder(64),
        window=WINDOW,
        on_progress=lambda progress: print(progress.report.written, flush=True),
    )
