"""The rejects file: rejected rows, their place and reason."""

from __future__ import annotations

import base64
import codecs
import json
import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from msmarco_qdrant.core.field_path import field_values
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import OutputError, UsageError
from msmarco_qdrant.sources.fields import PASSAGE
from msmarco_qdrant.sources.lines import RAW_BYTES_KEPT, is_damage
from msmarco_qdrant.sources.rows import RowError, check_passage

_log = logging.getLogger(__name__)

_FEW_BYTES = 1 << 15
_SHOWN = 60
# The pid in a row made in Python, which is kept as JSON, or as Python shows it.
_PID = re.compile(
    rf"""\{{(["'])({"|".join(PASSAGE.ids)})\1: ((["'])(?P<text>.*?)\4[,}}]|(?P<number>-?[0-9]+))""",
    re.DOTALL,
)

NO_VECTOR_REASON = "the model gives no finite, non-zero vector, even in float32"


class RejectCount(AbstractContextManager["RejectCount"]):
    """The number of rejects, and the first; each is passed on, or all are logged as one warning.

    The warning is logged at the end of a `with` block.

    Args:
        on_reject: Called for each reject; None to log them.

    Attributes:
        count: Rejects so far.
        first: Place and reason of the first, "" before it.
        damage: Place and reason of the first that ends its source early, "" before it.
    """

    def __init__(self, on_reject: Callable[[Reject], None] | None) -> None:
        self._on_reject = on_reject
        self.count = 0
        self.first = self.damage = ""

    def add(self, reject: Reject) -> None:
        """Count a reject and pass it on."""
        if is_damage(reject.reason):
            self.damage = self.damage or describe_reject(reject)
        self.first = self.first or describe_reject(reject)
        self.count += 1
        if self._on_reject is not None:
            self._on_reject(reject)

    def __exit__(self, *_: object) -> None:
        if self.count and self._on_reject is None:
            _log.warning(
                "%s rows were rejected (on_reject=... gets each), the first: %s",
                f"{self.count:,}",
                self.first,
            )


class RejectsFile(AbstractContextManager["RejectsFile"]):
    """Writes rejects as JSON lines; the first reject creates the file.

    It gets at most 32 KiB or twice the size of the source, if that is more. Later rejects are only
    counted.

    Args:
        path: The file; the first reject replaces an older one.
        append: Append to an older file instead.
        source_bytes: Size of the source; None if it is unknown, for that of the rejected rows.

    Attributes:
        path: The file.
        count: Rejects so far.
        written: Rejects in the file.
        first: Place and reason of the first reject, "" before it.
    """

    def __init__(
        self, path: Path, *, append: bool = False, source_bytes: int | None = None
    ) -> None:
        self.path = path
        self._mode = "a" if append else "w"
        self._source_bytes = source_bytes
        self._rejected_bytes = self._bytes = 0
        self.count = self.written = 0
        self.first = ""
        self._file: IO[bytes] | None = None

    def write(self, reject: Reject) -> None:
        """Append a reject, if the file has space for it.

        Raises:
            OutputError: If the file cannot be written.
        """
        self._rejected_bytes += reject.raw_bytes
        try:
            if self._file is None:
                is_appended = self._mode == "a" and self.path.exists()
                self._bytes = self.path.stat().st_size if is_appended else 0
                self._file = self.path.open(f"{self._mode}b")
            line = f"{json.dumps(reject_to_json(reject), ensure_ascii=False)}\n".encode()
            if self.written == self.count and self._bytes + len(line) <= self._most_bytes():
                self._file.write(line)
                self._bytes += len(line)
                self.written += 1
        except OSError as exc:
            raise self._unwritable(exc) from exc
        self.first = self.first or describe_reject(reject)
        self.count += 1

    def _most_bytes(self) -> int:
        known = self._source_bytes
        return max(2 * (self._rejected_bytes if known is None else known), _FEW_BYTES)

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


def describe_reject(reject: Reject) -> str:
    """Return the place of a reject and its reason; of a row made in Python, its number and pid."""
    if reject.source:
        line = f", line {reject.line}" if reject.line else ""
        return f"{reject.source}{line}: {reject.reason}"
    places = [f"row {reject.line}"] if reject.line else []
    if found := _PID.match(reject.raw.decode("utf-8", "replace")):
        pid = found["number"] or found["text"]
        places.append(f"pid '{pid[:_SHOWN]}'" + ("..." if len(pid) > _SHOWN else ""))
    return f"{', '.join(places)}: {reject.reason}" if places else reject.reason


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
        raise UsageError(
            f"a source must yield Passage values, got {with_article(type(row).__name__)}"
        )
    try:
        return check_passage(row)
    except RowError as exc:
        return reject_passage(row, str(exc))


def duplicate_pid_reason(passage: Passage) -> str:
    """Return the reason of a reject whose pid was read before."""
    return f"pid {passage.pid!r} was read before in this run; the first one is used"


def other_tenant_reason(passage: Passage, field: str) -> str:
    """Return the reason of a reject whose pid is that of a passage of other tenants."""
    return (
        f"pid {passage.pid!r} is of a passage of another tenant by the field '{field}', which is "
        "not replaced: put the tenant's name into the pid, or delete that passage first"
    )


def no_shard_key_reason(passage: Passage, field: str) -> str:
    """Return the reason of a reject that has no shard in a collection with a shard key."""
    found = ", ".join(repr(value) for value in field_values(passage.meta, field)) or "none"
    return f"the field '{field}' must be one non-empty string, which chooses the shard, got {found}"


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
