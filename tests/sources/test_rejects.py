"""The rejects file: created by the first reject, with any bytes in the rows."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.sources.rejects import RejectsFile, reject_to_json
from msmarco_qdrant.sources.rows import hashed_reason


def reject(raw: bytes, raw_bytes: int | None = None, reason: str = "no tab") -> Reject:
    """A reject of line 7 of some file."""
    return Reject("x.tsv", 7, reason, raw, len(raw) if raw_bytes is None else raw_bytes)


def lines_of(path: Path) -> list[Any]:
    """The entries of a rejects file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def test_every_reject_is_a_line(tmp_path: Path) -> None:
    """With its file, line, reason, row and length of the row."""
    path = tmp_path / "rejects.jsonl"
    with RejectsFile(path) as rejects:
        rejects.write(reject(b"one"))
        rejects.write(reject(b"two", reason="the text is empty"))
    rejects.close()  # closing twice is allowed
    assert 2 == rejects.count
    entry = {"file": "x.tsv", "line": 7, "reason": "no tab", "raw_bytes": 3, "raw": "one"}
    assert [entry, {**entry, "reason": "the text is empty", "raw": "two"}] == lines_of(path)


def test_first_reject_replaces_an_older_file(tmp_path: Path) -> None:
    """Without a reject no file is created or changed."""
    path = tmp_path / "rejects.jsonl"
    with RejectsFile(path):
        assert not path.exists()
    path.write_text("older\n", "utf-8")
    with RejectsFile(path):
        assert "older\n" == path.read_text("utf-8")
    with RejectsFile(path) as rejects:
        rejects.write(reject(b"one"))
    assert ["one"] == [entry["raw"] for entry in lines_of(path)]


@pytest.mark.parametrize(
    "text", ["", "plain", "café \U0001f600", 'quote " and \\', "line\x0b\x0c\x1c\x85\u2028\r\x00"]
)
def test_text_is_kept_as_text(tmp_path: Path, text: str) -> None:
    """On one line, with any characters."""
    path = tmp_path / "rejects.jsonl"
    with RejectsFile(path) as rejects:
        rejects.write(reject(text.encode()))
    assert [text] == [entry["raw"] for entry in lines_of(path)]


@pytest.mark.parametrize(
    ("raw", "raw_bytes"),
    [(b"caf\xe9", None), (b"\xed\xa0\x80", None), (b"end \xe2\x82", None), (b"caf\xe9 au", 10_000)],
)
def test_bytes_that_are_not_utf8_are_base64(raw: bytes, raw_bytes: int | None) -> None:
    """Instead of `raw`, also for an invalid byte in a cut row."""
    entry = reject_to_json(reject(raw, raw_bytes))
    assert {"file", "line", "reason", "raw_bytes", "raw_base64"} == entry.keys()
    assert raw == base64.b64decode(entry["raw_base64"])


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_cut_inside_a_character_stays_text(cut: int) -> None:
    """An incomplete character at the cut is not an error of the row."""
    whole = "kept \U0001f600".encode()
    raw = whole[: len(whole) - 4 + cut]
    entry = reject_to_json(reject(raw, raw_bytes=10_000))
    assert ("kept \U0001f600" if cut == 4 else "kept ") == entry["raw"]
    assert 10_000 == entry["raw_bytes"]
    assert "raw_base64" not in entry


def test_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """The message names the file and what to do."""
    path = tmp_path / "missing" / "rejects.jsonl"
    with (
        RejectsFile(path) as rejects,
        pytest.raises(OutputError, match=r"rejects\.jsonl: No such file.*choose another path"),
    ):
        rejects.write(reject(b"one"))
    assert 0 == rejects.count


def test_full_disk_is_reported() -> None:
    """What is buffered is written at the latest when the file is closed."""
    rejects = RejectsFile(Path("/dev/full"))
    rejects.write(reject(b"one"))
    with pytest.raises(OutputError, match=r"No space left on device.*choose another path"):
        rejects.close()


@pytest.mark.parametrize(
    ("reason", "hashed"),
    [
        ("the pid must be a string, got a float", "the pid is a float, expected a string"),
        (
            "'meta' must be a JSON object as text: the JSON must be an object, got an array",
            (
                "'meta' is a string, expected a JSON object in it: "
                "a JSON object was expected, found an array"
            ),
        ),
        (
            "field 'n' must be a signed 64-bit integer, got 2; write it as a string",
            "field 'n': 2 does not fit 64 bits with a sign; write it as a string",
        ),
        ("'n' must be a finite number, got nan", "'n': a non-finite number: nan"),
        ("'n' must be a JSON value, got a set", "'n' is a set, which JSON does not have"),
        (
            "field 'a' must be inside or outside of 'meta', not both",
            "field 'a' stands both inside and beside 'meta'",
        ),
        (
            "a line must have at most 5,000 bytes, got 5,001",
            "the line has 5,001 bytes; 5,000 are accepted",
        ),
        ("the text is empty", "the text is empty"),
    ],
)
def test_shards_hash_the_old_words(reason: str, hashed: str) -> None:
    """An encode that version 0.1.0 began can be resumed."""
    assert hashed == hashed_reason(reason)
