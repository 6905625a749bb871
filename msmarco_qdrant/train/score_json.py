"""Rows of JSON: lines of objects, or one object with an entry per query, in bounded memory."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.content import Content
from msmarco_qdrant.sources.lines import DamagedStreamError

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_FIRST_KEY = re.compile(rb'\s*\{\s*"((?:[^"\\]|\\.)*)"\s*:')
# An incomplete value fails within its last string or number, which is an id or a score.
_LONGEST_SCALAR = 4096


def read_json_rows(
    source: str, content: Content, query_names: Collection[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of JSON lines, or each entry of one object as an object of its own.

    Args:
        source: The file's name, for messages.
        content: Its content.
        query_names: The names of a row's qid: a first object with one of them is a row.

    Yields:
        The place of each row, for messages, and the row.

    Raises:
        SourceError: If it is not UTF-8 or not JSON of these forms.
    """
    first = _FIRST_KEY.match(content.head)
    are_rows = first is not None and first[1].decode("utf-8", "replace") in query_names
    text = _Text(source, content.stream)
    try:
        yield from _lines(source, text) if are_rows else _entries(source, text)
    except DamagedStreamError as exc:
        raise SourceError(f"{source}: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise SourceError(f"{source} is not UTF-8: {exc.reason}") from exc


def _lines(source: str, text: _Text) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    while text.skip_to("{") is not None:
        number += 1
        yield f"{source}: row {number}", text.value()


def _entries(source: str, text: _Text) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of an object `{qid: {pid: score}}`, which may be followed by others."""
    while text.skip_to("{") is not None:
        text.take()
        while (mark := text.skip_to('"}')) == '"':
            qid = text.value()
            if text.skip_to(":") is not None:
                text.take()
            yield f"{source}: query {qid!r}", {qid: text.value()}
            if text.skip_to(",}") == ",":
                text.take()
        if mark is None:
            raise SourceError(f"{source} ends within its JSON object: the file was cut off")
        text.take()


class _Text:
    """The text of a stream, of which only a part is in memory."""

    def __init__(self, source: str, stream: io.BufferedReader) -> None:
        self._source = source
        self._stream = stream
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._buffer = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def skip_to(self, marks: str) -> str | None:
        """Skip white space; return the next character, one of `marks`, or None at the end."""
        while True:
            space = _SPACE.match(self._buffer, self._at)
            self._at = space.end() if space else self._at
            if self._at == len(self._buffer):
                if self._read():
                    continue
                return None
            mark = self._buffer[self._at]
            if mark not in marks:
                raise self._error(f"expected {' or '.join(marks)}")
            return mark

    def take(self) -> None:
        """Consume the character that `skip_to` returned."""
        self._at += 1

    def value(self) -> Any:
        """Decode the string or object that follows; more is read until it is complete."""
        self.skip_to('{["-0123456789tfnNI')
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as exc:
                is_cut = len(self._buffer) - exc.pos <= _LONGEST_SCALAR
                if not is_cut or not self._read():
                    raise self._error(exc.msg) from exc
            else:
                return value

    def _read(self) -> bool:
        """Read more; False at the end. What was consumed is dropped."""
        chunk = self._stream.read(max(_CHUNK, len(self._buffer) - self._at))
        self._buffer = self._buffer[self._at :] + self._utf8.decode(chunk, final=not chunk)
        self._at = 0
        return bool(chunk)

    def _error(self, problem: str) -> SourceError:
        shown = self._buffer[self._at : self._at + 60]
        return SourceError(
            f"{self._source} must be JSON lines of {{query_id, corpus_id, score}} or one object "
            f"{{qid: {{pid: score}}}}, got {shown!r}: {problem}"
        )
