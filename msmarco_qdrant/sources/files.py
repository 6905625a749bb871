"""Opening of files and standard input."""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.compression import SAMPLE_BYTES
from msmarco_qdrant.sources.content import STDIN, read_content
from msmarco_qdrant.sources.file_path import RemotePath, to_path
from msmarco_qdrant.sources.lines import FullFirstRead, Line, read_lines


def file_size(source: str) -> int | None:
    """Return the file's size in bytes, None for standard input and pipes.

    Raises:
        SourceError: If it is missing, a directory, or cannot be read.
    """
    if source == STDIN:
        return None
    path = to_path(source)
    try:
        status = path.stat()
    except FileNotFoundError as exc:
        where = f" (relative to {Path.cwd()})" if isinstance(path, Path) else ""
        raise SourceError(
            f"no such file: {source}{where}; check the path, or pass '-' for standard input"
        ) from exc
    except (OSError, ValueError) as exc:
        raise SourceError(f"cannot read {source!r}: {_reason(exc)}") from exc
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{source} is a directory: pass the files in it")
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def list_matching(source: str | PathLike[str]) -> list[str]:
    """Return the files that a URL with `*` or `[` in its last part matches; else the source.

    The shell does this for paths.

    Raises:
        SourceError: If none matches.
        UsageError: For a URL that is refused, see `to_path`.
    """
    path = STDIN if source == STDIN else to_path(source)
    if not isinstance(path, RemotePath) or not re.search(r"[*\[]", path.name):
        return [str(source)]
    found = sorted(str(one) for one in path.parent.glob(path.name))
    if not found and path.exists():  # its name has a bracket
        return [str(source)]
    if not found:
        raise SourceError(f"no file matches {source}; check the folder and the pattern")
    return found


@contextmanager
def open_source(source: str) -> Iterator[io.BufferedReader]:
    """Open a file or standard input; `peek` returns enough bytes to detect the content.

    Raises:
        SourceError: If it cannot be opened.
    """
    if source == STDIN:
        # Not sys.stdin: Python aborts at exit if a thread still reads it, as after Ctrl-C.
        with open(0, "rb", buffering=SAMPLE_BYTES, closefd=False) as stdin:  # a descriptor
            yield make_peekable(stdin)
        return
    try:
        file = to_path(source).open("rb", buffering=SAMPLE_BYTES)
    except OSError as exc:
        raise SourceError(f"cannot read {source}: {_reason(exc)}") from exc
    with file:
        yield make_peekable(file)


def make_peekable(stream: BinaryIO | io.BufferedIOBase) -> io.BufferedReader:
    """Wrap a pipe so that `peek` returns all bytes that detection needs."""
    if isinstance(stream, io.BufferedReader) and stream.seekable():
        return stream
    return io.BufferedReader(FullFirstRead(stream), SAMPLE_BYTES)


def read_text(source: str, max_bytes: int) -> Iterator[Line]:
    """Yield the lines of a text file, decompressed; empty ones are skipped.

    Raises:
        SourceError: If it cannot be read, or is not text.
    """
    file_size(source)
    with open_source(source) as raw:
        try:
            content = read_content(source, raw)
            if content.kind != "text":
                raise SourceError(f"{source} must be a text file, got {content.kind.title()}")
            lines = read_lines(content.stream, max_bytes)
            yield from (line for line in lines if line.data or line.problem)
        except OSError as exc:
            raise SourceError(f"cannot read {source}: {_reason(exc)}") from exc


def _reason(exc: OSError | ValueError) -> str:
    return getattr(exc, "strerror", None) or str(exc)
