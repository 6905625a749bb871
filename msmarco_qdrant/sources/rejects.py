"""The rejects file: rejected rows, their place and reason."""

from __future__ import annotations

import base64
import codecs
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import OutputError, UsageError
from msmarco_qdrant.sources.lines import RAW_BYTES_KEPT
from msmarco_qdrant.sources.rows import RowError, check_passage

NO_VECTOR_REASON = "the model gives no finite, non-zero vector, even in float32"


class RejectsFile(AbstractContextManager["RejectsFile"]):
    """Writes rejects as JSON lines; the first reject creates the file.

    Args:
        path: The file; the first reject replaces an older one.
        append: Append to an older file instead.

    Attributes:
        path: The file.
        count: Rejects written so far.
        first: Place and reason of the first reject, "" before it.
    """

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self.path = path
        self._mode = "a" if append else "w"
        self.count = 0
        self.first = ""
        self._file: IO[str] | None = None

    def write(self, reject: Reject) -> None:
        """Append a reject.

        Raises:
            OutputError: If the file cannot be written.
        """
        try:
            if self._file is None:
                self._file = self.path.open(self._mode, encoding="utf-8")
            json.dump(reject_to_json(reject), self._file, ensure_ascii=False)
            self._file.write("\n")
        except OSError as exc:
            raise self._unwritable(exc) from exc
        self.first = self.first or f"{reject.source}, line {reject.line}: {reject.reason}"
        self.count += 1

    def close(self) -> None:
        """Flush and close the file. Closing twice is allowed.

        Raises:
            OutputError: If the file cannot be written.
        """
        if self._file is not None:
            try:
                self._file.close()
            except OSError as exc:
                raise self._unwritable(exc) from exc

    def _unwritable(self, exc: OSError) -> OutputError:
        return OutputError(
            f"cannot write the rejects file {self.path}: {exc.strerror}; choose another path"
        )

    def __exit__(self, *_: object) -> None:
        self.close()


def reject_to_json(reject: Reject) -> dict[str, Any]:
    """Convert a reject to a JSON object.

    Returns:
        `file`, `line`, `reason`, `raw_bytes` (length of the whole row), and the row's first 4 KiB
        as `raw`, or as `raw_base64` if they are not UTF-8.
    """
    entry: dict[str, Any] = {
        "file": reject.source,
        "line": reject.line,
        "reason": reject.reason,
        "raw_bytes": reject.raw_bytes,
    }
    cut = len(reject.raw) < reject.raw_bytes
    try:
        # Of a cut row, an incomplete character at the end is not an error.
        entry["raw"] = codecs.getincrementaldecoder("utf-8")().decode(reject.raw, final=not cut)
    except UnicodeDecodeError:
        entry["raw_base64"] = base64.b64encode(reject.raw).decode("ascii")
    return entry


def check_row(row: object) -> Passage | Reject:
    """Validate a row made in Python like a line of a file.

    Raises:
        UsageError: If it is neither a passage nor a reject.
    """
    if isinstance(row, Reject):
        return row
    if not isinstance(row, Passage):
        raise UsageError(f"a source must yield Passage values, got a {type(row).__name__}")
    try:
        return check_passage(row)
    except RowError as exc:
        return reject_passage(row, str(exc))


def duplicate_pid_reason(passage: Passage) -> str:
    """Return the reason of a reject whose pid was read before."""
    return f"pid {passage.pid!r} was read before in this run; the first one is used"


def reject_passage(passage: Passage, reason: str) -> Reject:
    """Reject a parsed passage, with its original row, or as JSON if it was made in Python."""
    raw = passage.raw or _as_json(passage)
    return Reject(passage.source, passage.line, reason, raw[:RAW_BYTES_KEPT], len(raw))


def _as_json(passage: Passage) -> bytes:
    row = {"pid": passage.pid, "text": passage.text, "meta": passage.meta}
    try:
        text = json.dumps(row, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):  # not JSON, which is the reason of the reject
        text = repr(row)
    return text.encode("utf-8", "backslashreplace")
