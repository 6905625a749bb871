"""Lines of the text files that an evaluation reads, plain or compressed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from os import PathLike

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.files import read_text

_MAX_LINE_BYTES = 1 << 16
_SHOWN = 60
_COLUMN = re.compile(r"[^ \t\r\f\v]+")


def read_text_lines(source: str | PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yield each line that is not blank with its place, ``file:number``.

    Raises:
        SourceError: For an unreadable file, or a line that is too long or not UTF-8.
    """
    name = os.fspath(source)
    for line in read_text(name, _MAX_LINE_BYTES):
        place = f"{name}:{line.number}"
        if line.problem:
            raise SourceError(f"{place}: {line.problem}")
        if line.data.strip():
            yield place, _decode(line.data, place)


def _decode(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise SourceError(f"{place}: not UTF-8 at byte {exc.start + 1} of the line") from exc


def split_columns(line: str) -> list[str]:
    """Split at ASCII white space, as TREC's tools do: a pid may contain any other."""
    return _COLUMN.findall(line)


def shorten(line: str) -> str:
    """Return the beginning of a line, for a message."""
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
