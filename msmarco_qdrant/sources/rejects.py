"""The rejects file: what did not go in, where it stood, and why."""

from __future__ import annotations

import base64
import codecs
import json
from pathlib import Path
from typing import IO, Any

from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import OutputError, UsageError
from msmarco_qdrant.sources.lines import RAW_BYTES_KEPT
from msmarco_qdrant.sources.rows import RowError, check_passage

NO_VECTOR_REASON = "the model gives no finite, non-zero vector for it, in float32 neither"


class RejectsFile:
    """Writes rejects as JSON lines; the file is made with the first of them.

    Args:
        path: Where; an older file there is replaced when the first reject comes.
        append: Write behind what an older file holds, instead.

    Attributes:
        path: The same path.
        count: Rejects written so far.
        first: The place and reason of the first of them, "" before it.
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
        """Write out what is buffered. Closing twice is no error.

        Raises:
            OutputError: If that cannot be written.
        """
        if self._file is not None:
            try:
                self._file.close()
            except OSError as exc:
                raise self._unwritable(exc) from exc

    def _unwritable(self, exc: OSError) -> OutputError:
        return OutputError(
            f"cannot write the rejects file {self.path}: {exc.strerror}; name another with "
            "--rejects"
        )

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reject_to_json(reject: Reject) -> dict[str, Any]:
    """A reject as a JSON object.

    Returns:
        `file`, `line`, `reason`, `raw_bytes` (the row's whole length), and the row's first 4 KiB
        as `raw`, or as `raw_base64` where they are not UTF-8.
    """
    entry: dict[str, Any] = {
        "file": reject.source,
        "line": reject.line,
        "reason": reject.reason,
        "raw_bytes": reject.raw_bytes,
    }
    cut = len(reject.raw) < reject.raw_bytes
    try:
        # Not final: where the row was cut, half a character at the end is no fault of the row.
        entry["raw"] = codecs.getincrementaldecoder("utf-8")().decode(reject.raw, final=not cut)
    except UnicodeDecodeError:
        entry["raw_base64"] = base64.b64encode(reject.raw).decode("ascii")
    return entry


def check_row(row: object) -> Passage | Reject:
    """A row that was made in Python, looked at as a line of a file is.

    Raises:
        UsageError: For what is neither a passage nor a reject.
    """
    if isinstance(row, Reject):
        return row
    if not isinstance(row, Passage):
        raise UsageError(f"a source of passages yielded a {type(row).__name__}, expected a Passage")
    try:
        return check_passage(row)
    except RowError as exc:
        return reject_passage(row, str(exc))


def duplicate_pid_reason(passage: Passage) -> str:
    """Why a passage whose pid came before is rejected."""
    return f"pid {passage.pid!r} stood before in this run; the first wins"


def reject_passage(passage: Passage, reason: str) -> Reject:
    """A reject of what had parsed: its row as it stood, or written anew if it never stood."""
    raw = passage.raw or _as_json(passage)
    return Reject(passage.source, passage.line, reason, raw[:RAW_BYTES_KEPT], len(raw))


def _as_json(passage: Passage) -> bytes:
    row = {"pid": passage.pid, "text": passage.text, "meta": passage.meta}
    try:
        text = json.dumps(row, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):  # no JSON, which is why it is rejected
        text = repr(row)
    return text.encode("utf-8", "backslashreplace")
