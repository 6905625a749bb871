"""Files and streams: passages, rejects and their places."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msmarco_qdrant.core.records import Passage, Query, Reject
from msmarco_qdrant.core.source_types import Format
from msmarco_qdrant.errors import MissingExtraError, SourceError, UsageError
from msmarco_qdrant.sources.content import read_content
from msmarco_qdrant.sources.corpus import (
    MAX_LINE_BYTES,
    Corpus,
    as_rows,
    read_pids,
    read_queries,
)
from msmarco_qdrant.sources.files import make_peekable, open_source
from msmarco_qdrant.sources.lines import read_lines

BOM = b"\xef\xbb\xbf"


def put(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path


def read(path: Path, form: Format = "auto", **options: Any) -> list[Passage | Reject]:
    """Every row of a file."""
    return list(Corpus(path, format=form, **options))


def json_line(**fields: Any) -> bytes:
    """A JSON object on a line of its own, without the line's end."""
    return json.dumps(fields).encode()


def passages_of(rows: Sequence[Passage | Reject]) -> list[Passage]:
    """The passages among some rows."""
    return [row for row in rows if isinstance(row, Passage)]


def rejects_of(rows: Sequence[Passage | Reject]) -> list[Reject]:
    """The rejects among some rows."""
    return [row for row in rows if isinstance(row, Reject)]


def put_parquet(path: Path, **columns: Any) -> Path:
    """Write a Parquet file of these columns."""
    pq.write_table(pa.table(columns), path)
    return path


# ---- valid rows ----------------------------------------------------------------------------

_NESTED: Any = {"a": {"a": "core"}}
for _ in range(21):
    _NESTED = {"a": _NESTED}
_NUMBERS = {"low": -(2**63), "high": 2**63 - 1, "small": 5e-324, "large": 1.7e308}

JSON_ROWS: dict[str, tuple[dict[str, Any], Passage]] = {
    "pid": ({"pid": "007", "text": "t"}, Passage("007", "t")),
    "_id": ({"_id": "a", "text": "t"}, Passage("a", "t")),
    "id": ({"id": "a", "text": "t"}, Passage("a", "t")),
    "first pid": (
        {"id": "c", "_id": "b", "pid": "a", "text": "t"},
        Passage("a", "t", {"id": "c", "_id": "b"}),
    ),
    "null pid": ({"pid": None, "id": "c", "text": "t"}, Passage("c", "t", {"pid": None})),
    "negative pid": ({"pid": -7, "text": "t"}, Passage("-7", "t")),
    "large pid": ({"pid": 2**70, "text": "t"}, Passage(str(2**70), "t")),
    "title": ({"_id": "1", "title": "London", "text": "is big"}, Passage("1", "London is big")),
    "empty title": ({"_id": "1", "title": "", "text": " is big"}, Passage("1", " is big")),
    "null title": ({"_id": "1", "title": None, "text": "is big"}, Passage("1", "is big")),
    "title only": ({"_id": "1", "title": "London", "text": ""}, Passage("1", "London")),
    "meta": (
        {"pid": "1", "text": "t", "tags": ["a", {"b": None}], "meta": {"year": 2024}},
        Passage("1", "t", {"tags": ["a", {"b": None}], "year": 2024}),
    ),
    "null meta": ({"pid": "1", "text": "t", "meta": None}, Passage("1", "t")),
    "numbers": ({"pid": "1", "text": "t", **_NUMBERS}, Passage("1", "t", _NUMBERS)),
    "nested": ({"pid": "1", "text": "t", "x": _NESTED}, Passage("1", "t", {"x": _NESTED})),
}


@pytest.mark.parametrize(("fields", "expected"), JSON_ROWS.values(), ids=JSON_ROWS)
def test_json_line_becomes_a_passage(
    tmp_path: Path, fields: dict[str, Any], expected: Passage
) -> None:
    """The first of pid, _id and id is the pid; BEIR's title is joined; other fields are meta."""
    path = put(tmp_path / "corpus.jsonl.gz", json_line(**fields))  # not gzip, despite its name
    assert [expected] == read(path)


_LONG = "ab " * 250_000 + "end"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"007\tone\n 7\ttwo \n", [("007", "one", 1), (" 7", "two ", 2)]),
        (b"0\tone\n\n1\ttwo\n", [("0", "one", 1), ("1", "two", 3)]),
        (f"1\t{_LONG}\n2\tnext\n".encode(), [("1", _LONG, 1), ("2", "next", 2)]),
        (
            gzip.compress(b"1\tone\n2\tt", mtime=0) + gzip.compress(b"wo\n3\tthree\n", mtime=0),
            [("1", "one", 1), ("2", "two", 2), ("3", "three", 3)],
        ),
        *((content, []) for content in (b"", b"\n", b"\r\n\n", BOM, BOM + b"\r\n")),
    ],
)
def test_tsv_lines_become_passages(
    tmp_path: Path, content: bytes, expected: list[tuple[str, str, int]]
) -> None:
    """The first tab ends the pid; source and line number are known; the content reveals gzip."""
    for name in ("x.tsv", "x.gz"):
        corpus = Corpus(put(tmp_path / name, content))
        rows = passages_of(list(corpus))
        assert expected == [(row.pid, row.text, row.line) for row in rows]
        assert {str(tmp_path / name)} >= {row.source for row in rows}
        assert rows == list(corpus)  # it can be read again


# ---- line ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"1\tone\n2\ttwo\n", ["one", "two"]),
        (b"1\tone\n2\ttwo", ["one", "two"]),
        (b"1\tone\r\n2\ttwo\r\n", ["one", "two"]),
        (b"1\tone\r\r\n2\ttwo\n", ["one\r", "two"]),
        (b"1\tone\n2\ttwo\r", ["one", "two\r"]),
        (BOM + b"1\tone\n2\ttwo\n", ["one", "two"]),
        (b"1\tone\n2\t" + BOM + b"two\n", ["one", "\ufefftwo"]),
        (b"\n\r\n1\tone\n\n\n2\ttwo\n\r\n", ["one", "two"]),
    ],
)
def test_lines_end_at_newline(tmp_path: Path, content: bytes, texts: list[str]) -> None:
    """One carriage return before it and a leading byte order mark are dropped, nothing else."""
    rows = read(put(tmp_path / "x.tsv", content))
    assert texts == [row.text for row in passages_of(rows)]
    assert [] == rejects_of(rows)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x1d", "\x85", "\u2028", "\r"])
@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_other_line_separators_do_not_end_a_line(
    tmp_path: Path, separator: str, form: Format
) -> None:
    """Real MS MARCO text holds form feeds, U+2028 and lone carriage returns."""
    text = f"before{separator}after"
    # written by hand: JSON itself forbids control characters below U+0020 unless escaped
    escaped = text if separator >= "\x20" else json.dumps(text)[1:-1]
    line = f"1\t{text}" if form == "tsv" else f'{{"pid": "1", "text": "{escaped}"}}'
    path = put(tmp_path / "x", line.encode() + b"\n")
    assert [Passage("1", text)] == read(path, form)


# ---- bad rows ------------------------------------------------------------------------------

BAD_TSV = {
    "not utf-8": (b"2\tcaf\xe9", "not UTF-8: byte 0xe9 at offset 5"),
    "half a character": (b"2\tcaf\xc3", "not UTF-8: byte 0xc3 at offset 5"),
    "no tab": (b"2 text", "no tab"),
    "no pid": (b"\ttext", "no pid"),
    "empty text": (b"2\t", "the text is empty"),
    "blank text": (b"2\t \xc2\xa0\xe2\x80\xa8 ", "the text is empty"),
    "nul in text": (b"2\ta\x00b", "the text holds a NUL byte"),
    "nul in pid": (b"2\x00\tab", "the pid holds a NUL byte"),
}

BAD_JSON = {
    "not utf-8": (b'{"pid": "2", "text": "caf\xe9"}', "not UTF-8: byte 0xe9"),
    "broken": (b'{"pid": "2", "text": "t"', "broken JSON: "),
    "two objects": (b'{"pid": "2", "text": "t"}{}', "broken JSON: Extra data"),
    "too deep to parse": (b'{"pid": "2", "text": "t", "x": ' + b"[" * 200_000, "nested too deeply"),
    "too deep to store": (
        b'{"pid": "2", "text": "t", "x": ' + b"[" * 25 + b"]" * 25 + b"}",
        "nested too deeply: 24 levels",
    ),
    "endless integer": (b'{"pid": "2", "text": "t", "n": ' + b"1" * 5000 + b"}", "broken JSON"),
    "array": (b'["2", "t"]', "the JSON must be an object, got an array"),
    "no pid": (b'{"text": "t"}', "no pid: expected a field"),
    "pid empty": (b'{"pid": "", "text": "t"}', "no pid: it is empty"),
    "pid float": (
        b'{"pid": 2.0, "text": "t"}',
        "the pid must be a string or an integer, got a float",
    ),
    "pid wrong though id is right": (b'{"pid": 2.5, "id": "2", "text": "t"}', "a float"),
    "pid with nul": (b'{"pid": "2\\u0000", "text": "t"}', "the pid holds a NUL byte"),
    "no text": (b'{"pid": "2"}', "no text: expected a field 'text'"),
    "text empty": (b'{"pid": "2", "text": ""}', "the text is empty"),
    "title and text blank": (b'{"pid": "2", "title": " ", "text": " "}', "the text is empty"),
    "text null": (b'{"pid": "2", "text": null}', "'text' must be a string, got null"),
    "title number": (
        b'{"pid": "2", "title": 0, "text": "t"}',
        "'title' must be a string, got an integer",
    ),
    "text with nul": (b'{"pid": "2", "text": "a\\u0000b"}', "the text holds a NUL byte"),
    "text with surrogate": (b'{"pid": "2", "text": "\\ud800"}', "lone surrogate, U+D800"),
    "nan": (b'{"pid": "2", "text": "t", "n": NaN}', "a non-finite number: NaN"),
    "overflow": (
        b'{"pid": "2", "text": "t", "n": [1e999]}',
        "'n'[0] must be a finite number, got inf",
    ),
    "integer too big": (
        b'{"pid": "2", "text": "t", "n": 9223372036854775808}',
        "64-bit integer, got",
    ),
    "meta no object": (
        b'{"pid": "2", "text": "t", "meta": []}',
        "'meta' must be an object, got an array",
    ),
    "meta twice": (
        b'{"pid": "2", "text": "t", "a": 1, "meta": {"a": 1}}',
        "field 'a' must be inside or outside of 'meta', not both",
    ),
    "meta with nul": (b'{"pid": "2", "text": "t", "a": {"b": "\\u0000"}}', "'a'.b holds a NUL"),
    "field name with nul": (b'{"pid": "2", "text": "t", "\\u0000": 1}', "a field name in the row"),
    "field name with surrogate": (
        b'{"pid": "2", "text": "t", "a": {"\\ud800": 1}}',
        "a field name in field 'a' holds a lone surrogate",
    ),
    "surrogate twice": (
        b'{"pid": "2", "text": "t", "\\ud800": 1, "meta": {"\\ud800": 1}}',
        "field '\\ud800' must be inside or outside of 'meta', not both",
    ),
}


BAD = [("tsv", *case) for case in BAD_TSV.values()] + [
    ("jsonl", *case) for case in BAD_JSON.values()
]


@pytest.mark.parametrize(
    ("form", "bad", "reason"), BAD, ids=[f"tsv {name}" for name in BAD_TSV] + list(BAD_JSON)
)
def test_bad_line_is_one_reject(tmp_path: Path, form: Format, bad: bytes, reason: str) -> None:
    """It has the file, line, reason and row; the lines around it are read."""
    good = [b"1\tone", b"3\tthree"]
    if form == "jsonl":
        good = [json_line(pid="1", text="one"), json_line(pid="3", text="three")]
    path = put(tmp_path / "x", b"\r\n".join([good[0], bad, good[1], b""]))
    before, reject, after = read(path, form)
    assert [Passage("1", "one"), Passage("3", "three")] == [before, after]
    assert isinstance(reject, Reject)
    found = (reject.source, reject.line, reject.raw, reject.raw_bytes)
    assert (str(path), 2, bad[:4096], len(bad)) == found
    assert reason in reject.reason.encode("utf-8").decode("utf-8")


@pytest.mark.parametrize("length", [5001, 9000, 600_000])
def test_line_over_the_limit_is_one_reject(tmp_path: Path, length: int) -> None:
    """It has the first 4 KiB and the whole length, however many chunks it came in."""
    long = b"2\t" + b"x" * (length - 2)
    path = put(tmp_path / "x.tsv", b"1\tone\n" + long + b"\n3\tthree\n")
    rows = read(path, max_line_bytes=5000)
    assert [Passage("1", "one"), Passage("3", "three")] == passages_of(rows)
    reason = f"a line must have at most 5,000 bytes, got {length:,}"
    assert [Reject(str(path), 2, reason, long[:4096], length)] == rejects_of(rows)


def test_limit_is_a_mebibyte_by_default(tmp_path: Path) -> None:
    """A line of 1 MiB is read, one byte more is not; the line's end does not count."""
    fits = b"1\t" + b"x" * (MAX_LINE_BYTES - 2)
    path = put(tmp_path / "x.tsv", BOM + fits + b"\r\n" + fits + b"x\r\n3\tthree\n")
    rows = read(path)
    assert 1 << 20 == MAX_LINE_BYTES
    assert ["1", "3"] == [row.pid for row in passages_of(rows)]
    assert [(2, 4096, MAX_LINE_BYTES + 1)] == [
        (row.line, len(row.raw), row.raw_bytes) for row in rejects_of(rows)
    ]


# ---- gzip ----------------------------------------------------------------------------------


def collection(count: int = 300) -> bytes:
    """TSV lines that do not compress to nothing."""
    return b"".join(b"%d\t%x is text %d\n" % (n, zlib.crc32(b"%d" % n), n) for n in range(count))


def test_truncated_gzip_gives_every_complete_line(tmp_path: Path) -> None:
    """Wherever it is cut, all that zlib recovers is read, and the break is one reject."""
    whole = gzip.compress(collection(), mtime=0)
    size = len(whole)
    for cut in [*range(2, size, 97), *range(size - 20, size)]:
        path = put(tmp_path / "x.tsv.gz", whole[:cut])
        recovered = zlib.decompressobj(wbits=31).decompress(whole[:cut])
        *complete, begun = recovered.split(b"\n")
        rows = read(path)
        expected = [tuple(line.decode().split("\t")) for line in complete]
        assert expected == [(row.pid, row.text) for row in passages_of(rows)], cut
        reason = "the gzip stream ends early: the file was cut off"
        reject = Reject(str(path), len(complete) + 1, reason, begun, len(begun))
        assert [reject] == rejects_of(rows), cut


def test_damaged_gzip_is_reported(tmp_path: Path) -> None:
    """A wrong checksum, a bad block or garbage at the end is one reject after the good lines."""
    compressor = zlib.compressobj(wbits=31)
    start = compressor.compress(collection()) + compressor.flush(zlib.Z_FULL_FLUSH)
    wrong = bytearray(gzip.compress(collection(), mtime=0))
    wrong[-8] ^= 0xFF
    garbage = gzip.compress(b"1\tone\n") + b"garbage"
    for content, count in ((bytes(wrong), 300), (start + b"\xff" * 100, None), (garbage, 1)):
        *rows, last = read(put(tmp_path / "x.tsv.gz", content))
        assert isinstance(last, Reject)
        assert "the gzip stream is damaged" in last.reason
        assert count in (None, len(rows))
        assert rows == passages_of(rows)


# ---- formats -------------------------------------------------------------------------------

ONE = json_line(pid="1", text="one")


@pytest.mark.parametrize("name", ["x.jsonl", "x.JSONL", "x.jsonl.gz", "x.parquet", "x.zip", "x"])
def test_s3_name_does_not_decide_the_format(tmp_path: Path, name: str) -> None:
    """The content does, and `format` wins over it."""
    path = put(tmp_path / name, b"1\tone\n")
    assert [Passage("1", "one")] == read(path)
    assert [True] == ["broken JSON" in row.reason for row in rejects_of(read(path, "jsonl"))]


@pytest.mark.parametrize("content", [ONE, b"\n \n" + ONE, BOM + ONE, gzip.compress(ONE, mtime=0)])
def test_content_decides_the_format(tmp_path: Path, content: bytes) -> None:
    """Without a known extension a brace means JSON lines, and PAR1 means Parquet."""
    assert [Passage("1", "one")] == passages_of(read(put(tmp_path / "passages.txt", content)))
    assert [Passage("a", "one")] == read(put_parquet(tmp_path / "x", _id=["a"], text=["one"]))


@pytest.mark.parametrize("compress", [False, True])
def test_json_array_is_refused_at_once(tmp_path: Path, compress: bool) -> None:
    """It would have to be held in memory; the message advises a command that splits it."""
    content = b'\n[{"pid": "1", "text": "one"}]'
    path = put(tmp_path / "x.json", gzip.compress(content) if compress else content)
    with pytest.raises(
        SourceError, match=r"must have one JSON object per line, got an array: .*jq"
    ):
        Corpus(path)


# ---- sources -------------------------------------------------------------------------------


def test_several_files_are_read_in_order(tmp_path: Path) -> None:
    """Each in its own format and with its own line numbers."""
    corpus = Corpus(
        [
            put(tmp_path / "a.tsv", b"1\tone\n2\ttwo"),
            put(tmp_path / "b.jsonl", json_line(pid=3, text="three")),
            put(tmp_path / "c.tsv.gz", gzip.compress(b"no tab\n4\tfour\n")),
        ]
    )
    rows = list(corpus)
    assert [("a.tsv", 1), ("a.tsv", 2), ("b.jsonl", 1), ("c.tsv.gz", 1), ("c.tsv.gz", 2)] == [
        (Path(row.source).name, row.line) for row in rows
    ]
    assert ["1", "2", "3", "4"] == [row.pid for row in passages_of(rows)]


def test_position_ends_at_the_size(tmp_path: Path) -> None:
    """Progress counts the bytes of all files; row numbers continue between batches."""
    paths = [
        put(tmp_path / "a.tsv", collection()),
        put(tmp_path / "b.tsv.gz", gzip.compress(collection())),
        put_parquet(tmp_path / "c.parquet", pid=list(map(str, range(5000))), text=["t"] * 5000),
    ]
    corpus = Corpus(paths)
    rows = [(row.line, corpus.position) for row in corpus]
    positions = [position for _, position in rows]
    assert list(range(1, 5001)) == [line for line, _ in rows[-5000:]]  # of two batches
    assert sum(path.stat().st_size for path in paths) == corpus.size == corpus.position
    assert sorted(positions) == positions


@pytest.mark.parametrize(
    ("sources", "form", "message"),
    [
        (["good.tsv", "nowhere.tsv"], "auto", r"no such file: nowhere\.tsv \(relative to "),
        (["."], "auto", r"\. is a directory: pass the files in it"),
        ([], "auto", "sources must not be empty"),
        (["-", "-"], "auto", "at most once"),
        (["-"], "parquet", "pass the file's path"),
        (["good.tsv"], "xml", "must be one of auto, tsv, csv, jsonl, parquet, arrow, got 'xml'"),
    ],
)
def test_invalid_sources_are_refused_at_once(sources: list[str], form: Any, message: str) -> None:
    """On construction, before a row is read."""
    put(Path("good.tsv"), b"1\tone\n")
    with pytest.raises((SourceError, UsageError), match=message):
        Corpus(sources, format=form)


def test_named_pipe_is_read(tmp_path: Path) -> None:
    """It is opened once, as a first look would end its writer."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    corpus = Corpus(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"1\tone\n2\ttwo\n",))
    writer.start()
    rows = list(corpus)
    writer.join()
    assert [Passage("1", "one"), Passage("2", "two")] == rows
    assert corpus.size is None


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(json_line(pid="1", text="one") + b"\n" + json_line(pid="2", text="two")),
        b"PAR1....",
    ],
    ids=["jsonl in gzip", "parquet"],
)
def test_standard_input_is_read(content: bytes) -> None:
    """The source "-" detects the format by content; Parquet is refused."""
    program = (
        "from msmarco_qdrant.sources.corpus import Corpus\n"
        "corpus = Corpus('-')\n"
        "print([(row.source, row.line, row.pid, row.text) for row in corpus], corpus.size)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=content, capture_output=True, check=False
    )
    if content.startswith(b"PAR1"):
        assert b"SourceError: Parquet cannot be read from standard input" in done.stderr
        return
    assert "[('-', 1, '1', 'one'), ('-', 2, '2', 'two')] None" == done.stdout.decode().strip()


class _Trickle(io.RawIOBase):
    """A pipe whose writer sends a byte at a time, as pigz sends a header alone."""

    def __init__(self, content: bytes) -> None:
        self._rest = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        piece, self._rest = self._rest[:1], self._rest[1:]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("compress", [False, True])
def test_slow_pipe_is_recognized(compress: bool) -> None:
    """Gzip and format are detected however few bytes come first."""
    content = b"\n" + json_line(pid="1", text="one") + b"\n" + json_line(pid="2", text="two")
    pipe = io.BufferedReader(_Trickle(gzip.compress(content) if compress else content))
    found = read_content("-", make_peekable(pipe))
    assert content == found.head
    lines = [line.data for line in read_lines(found.stream, 1000)]
    assert content.split(b"\n") == lines


def test_as_rows_opens_paths_only(tmp_path: Path) -> None:
    """A path becomes a corpus, an iterable gives its passages."""
    path = put(tmp_path / "a.tsv", b"1\tone\n")
    passages = [Passage("1", "one")]
    assert passages == list(as_rows(path)) == list(as_rows(str(path)))
    assert passages == list(as_rows(passages))
    with_other_pids = put(tmp_path / "b.tsv", b"2\ttwo\n")
    assert [*passages, Passage("2", "two")] == list(as_rows((str(path), str(with_other_pids))))
    for nothing in (5, None, passages[0]):
        with pytest.raises(UsageError, match="passages must be"):
            as_rows(nothing)  # type: ignore[arg-type]


# ---- Parquet -------------------------------------------------------------------------------


def test_parquet_columns_are_fields(tmp_path: Path) -> None:
    """Dates become ISO 8601, nulls are left out, a struct 'meta' is merged, titles are joined."""
    noon = dt.datetime(2024, 5, 6, 12, 30, tzinfo=dt.UTC)
    path = put_parquet(
        tmp_path / "x.parquet",
        pid=pa.array([1, 2], pa.int64()),
        title=["London", None],
        text=["is big", "two"],
        day=[dt.date(2024, 5, 6), None],
        at=[noon, None],
        tags=[["a", "b"], None],
        meta=[{"lang": "en", "seen": dt.date(2020, 1, 2)}, None],
    )
    first = {
        "day": "2024-05-06",
        "at": "2024-05-06T12:30:00+00:00",
        "tags": ["a", "b"],
        "lang": "en",
        "seen": "2020-01-02",
    }
    assert [Passage("1", "London is big", first), Passage("2", "two", {})] == read(path)


def test_parquet_meta_may_be_json_text(tmp_path: Path) -> None:
    """As an export writes it: types may differ between rows; null and {} are no meta."""
    texts = ['{"year": 2024, "deep": {"a": [1, 2.0, null]}}', '{"year": "2024"}', "{}", None]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        path = put_parquet(
            tmp_path / "x.parquet",
            pid=["1", "2", "3", "4"],
            text=["t"] * 4,
            meta=pa.array(texts).cast(kind),
            lang=["en", None, None, None],
        )
        first = {"lang": "en", "year": 2024, "deep": {"a": [1, 2.0, None]}}
        assert [
            Passage("1", "t", first),
            Passage("2", "t", {"year": "2024"}),
            Passage("3", "t", {}),
            Passage("4", "t", {}),
        ] == read(path)


def test_bad_parquet_row_is_one_reject(tmp_path: Path) -> None:
    """It has the row number and the fields; the rows around it are read."""
    path = put_parquet(
        tmp_path / "x.parquet",
        pid=["1", None, "3", "4", "5", "6", "7", "8", "9", "10", "11"],
        text=["one", "two", None, " ", "five", "six", *["more"] * 5],
        score=[0.5, 0.5, 0.5, 0.5, float("nan"), *[0.5] * 6],
        meta=[*[None] * 5, '{"score": 1}', "english", '["a"]', '{"a": NaN}', "[" * 100_000, "{}"],
    )
    rows = read(path)
    passages = [Passage("1", "one", {"score": 0.5}), Passage("11", "more", {"score": 0.5})]
    assert passages == passages_of(rows)
    meta = "'meta' must be a JSON object as text:"
    pid = "no pid: expected a field 'pid', '_id' or 'id' (or docid, doc_id, docno, passage_id)"
    text = "no text: expected a field 'text' (or passage, contents, segment, body, content)"
    assert [
        (2, f"{pid}, got text, score"),
        (3, f"{text}, got pid, score"),
        (4, "the text is empty"),
        (5, "field 'score' must be a finite number, got nan"),
        (6, "field 'score' must be inside or outside of 'meta', not both"),
        (7, f"{meta} broken JSON: Expecting value at column 1"),
        (8, f"{meta} the JSON must be an object, got an array"),
        (9, f"{meta} a non-finite number: NaN"),
        (10, f"{meta} broken JSON: nested too deeply"),
    ] == [(row.line, row.reason) for row in rejects_of(rows)]
    raw = {"pid": None, "text": "two", "score": 0.5, "meta": None}
    assert raw == json.loads(rejects_of(rows)[0].raw)


def test_parquet_text_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    """Parquet does not check its strings; the other rows are read."""
    buffers = pa.array([b"one", b"caf\xe9", b"three"]).buffers()
    text = pa.Array.from_buffers(pa.string(), 3, buffers)
    path = put_parquet(tmp_path / "x.parquet", pid=["1", "2", "3"], text=text)
    rows = read(path)
    assert [Passage("1", "one"), Passage("3", "three")] == passages_of(rows)
    reason = "not UTF-8: byte 0xe9 at offset 3"
    assert [Reject(str(path), 2, reason, b"caf\xe9", 4)] == rejects_of(rows)


def test_parquet_value_that_python_cannot_hold_is_rejected(tmp_path: Path) -> None:
    """A day after the year 9999 rejects only its own row."""
    day = pa.array([0, 2**31 - 1], pa.date32())
    path = put_parquet(tmp_path / "x.parquet", pid=["1", "2"], text=["one", "two"], day=day)
    rows = read(path)
    assert [Passage("1", "one", {"day": "1970-01-01"})] == passages_of(rows)
    assert [(2, True)] == [
        (row.line, row.reason.startswith("a value cannot be read")) for row in rejects_of(rows)
    ]


@pytest.mark.parametrize("content", [b"PAR1 and no more", b"PAR1" + b"\0" * 60_000])
def test_damaged_parquet_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    """Its index is at the end: without it no row can be read."""
    path = put(tmp_path / "x.parquet", content)
    with pytest.raises(SourceError, match=r"x\.parquet cannot be read as Parquet"):
        Corpus(path)


def test_parquet_without_its_extra_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the command to install it."""
    path = put_parquet(tmp_path / "x.parquet", pid=["1"], text=["one"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # the import system's own "not installed"
    with pytest.raises(MissingExtraError, match=r"pip install 'msmarco-qdrant\[parquet\]'"):
        Corpus(path)


# ---- pids ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "pids"),
    [
        (b"1\n007\nb6c0\n", ["1", "007", "b6c0"]),
        (b"\n\r\n1\n\n2\r\n", ["1", "2"]),
        (BOM + "Mäuse 1\n 2 \n".encode(), ["Mäuse 1", " 2 "]),
        (gzip.compress(b"1\n2\n", mtime=0), ["1", "2"]),
        (b"", []),
    ],
)
def test_pids_are_read_line_by_line(tmp_path: Path, content: bytes, pids: list[str]) -> None:
    """Each line is a pid, spaces included."""
    assert pids == list(read_pids(put(tmp_path / "pids.txt", content)))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"2\ttext", "it holds a tab; write one pid per line"),
        (b"caf\xe9", "not UTF-8: byte 0xe9 at offset 3"),
        (b"x" * (MAX_LINE_BYTES + 1), "at most 1,048,576 bytes, got 1,048,577"),
    ],
    ids=["tab", "not utf-8", "too long"],
)
def test_invalid_pid_is_an_error(tmp_path: Path, line: bytes, reason: str) -> None:
    """With its place; the pids before it were yielded."""
    path = put(tmp_path / "pids.txt", b"1\n" + line + b"\n3\n")
    pids = read_pids(path)
    assert "1" == next(pids)
    with pytest.raises(SourceError, match=rf"pids\.txt:2 is not a pid: .*{reason}"):
        next(pids)


@pytest.mark.parametrize("reader", [read_pids, read_queries])
def test_missing_files_are_refused(reader: Any) -> None:
    """A file of pids or queries must exist."""
    with pytest.raises(SourceError, match="no such file"):
        list(reader("nowhere"))


# ---- queries -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("queries.tsv", b"1\thow big is london\n\n2\twhy is the sky blue"),
        (
            "queries.jsonl",
            b"""{"_id": "1", "text": "how big is london", "metadata": {}}
                 {"_id": "2", "text": "why is the sky blue"}""",
        ),
        ("queries", gzip.compress(b"1\thow big is london\n2\twhy is the sky blue\n", mtime=0)),
    ],
    ids=["tsv", "jsonl", "gzip"],
)
def test_queries_are_read(tmp_path: Path, name: str, content: bytes) -> None:
    """As TSV or as BEIR's JSON lines."""
    path = put(tmp_path / name, content)
    expected = [Query("1", "how big is london"), Query("2", "why is the sky blue")]
    assert expected == list(read_queries(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [("q.tsv", "1\ta\n\n2\tb\n1\ta\n"), ("q.jsonl", '{"_id": 1, "text": "a"}\n\n\n' * 2)],
)
def test_s8_repeated_qid_is_refused(tmp_path: Path, name: str, content: str) -> None:
    """With both lines: two answers under one qid are one ranking for every tool."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SourceError, match=":4: each query needs its own qid, got '1' also in"):
        list(read_queries(path))


def test_line_that_is_not_a_query_stops(tmp_path: Path) -> None:
    """A skipped query would change every mean without notice."""
    path = put(tmp_path / "queries.tsv", b"1\thow big is london\nno tab\n")
    with pytest.raises(
        SourceError, match=r"queries\.tsv:2 is not a query: .*expected qid<TAB>text"
    ):
        list(read_queries(path))
    path = put_parquet(tmp_path / "queries.parquet", query_id=[1], query=["how big is london"])
    assert [Query("1", "how big is london")] == list(read_queries(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"q1 0 b 1\nq2 0 c -1\n", r"holds judgments, not passages \(q1 0 b 1\): .*--qrels"),
        (b"q1\t0\tb\t1\nq2\t0\tc\t2\n", "holds judgments, not passages"),
        (b"query-id\tcorpus-id\tscore\nq1\tb\t1\n", "holds judgments, not passages"),
        (b"q1 Q0 b 1 0.5 tag\n", "holds the answers of a run, not passages .*--compare"),
        (b"q1 0 b 1\na red house\n", "has no tab in its first rows"),
    ],
)
def test_judgments_and_runs_are_not_passages(tmp_path: Path, content: bytes, message: str) -> None:
    """They are named as what they are, with the command that takes them."""
    with pytest.raises(SourceError, match=message):
        list(Corpus(put(tmp_path / "x.txt", content)))


@pytest.mark.parametrize(
    ("content", "read", "line", "reason"),
    [
        (b'id,text\n1,"a\n2,b\n3,c\n', [], 2, "a quote in lines 2 to 4 is not closed"),
        (b'id,text\n1,a\n2,"b\n', ["1"], 3, "a quote in line 3 is not closed"),
        (b'id,text\n1,a\n2,"b" c\n3,d\n', ["1", "3"], 3, "broken quotes in line 3: "),
    ],
)
def test_an_unclosed_quote_names_its_lines(
    tmp_path: Path, content: bytes, read: list[str], line: int, reason: str
) -> None:
    """One reject, as nothing after the quote is certain to be a row."""
    rows = list(Corpus(put(tmp_path / "x.csv", content)))
    assert read == [row.pid for row in rows if isinstance(row, Passage)]
    (reject,) = [row for row in rows if isinstance(row, Reject)]
    assert line == reject.line
    assert reject.reason.startswith(reason)


@pytest.mark.parametrize(
    ("content", "step"),
    [
        (b"q1 0 b 1\nq2 0 c -1\n", "these look like judgments, which --qrels takes"),
        (b"q1\t0\tb\t1\n", "these look like judgments, which --qrels takes"),
        (b"q1 Q0 b 1 0.5 tag\n", "these look like the answers of a run, which --compare takes"),
        (b"how big is london\nwho\n", "if each line is a query, number them with `nl -ba -w1 "),
        (b"q1\ten\tlondon\n", "name the columns qid and text in a first line"),
    ],
)
def test_c11_file_of_no_queries_says_what_to_do(tmp_path: Path, content: bytes, step: str) -> None:
    """Without the options of passages, which a reader of queries has not."""
    with pytest.raises(SourceError, match="q is not a file of queries") as caught:
        list(read_queries(put(tmp_path / "q", content)))
    assert step in str(caught.value)
    assert "--pid-field" not in str(caught.value)


# ---- random rows ---------------------------------------------------------------------------

fixed = settings(derandomize=True, deadline=None, max_examples=25)

characters = st.characters(codec="utf-8", exclude_characters="\x00")
texts = st.text(characters, min_size=1).filter(lambda text: bool(text.strip()))
tsv_texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00\n")
    | st.sampled_from("\r\x0b\x0c\x1c\x85\u2028\t\ufeff"),
    min_size=1,
).filter(lambda text: bool(text.strip()) and not text.endswith("\r"))
tsv_pids = st.text(st.characters(codec="utf-8", exclude_characters="\x00\n\t"), min_size=1).filter(
    lambda pid: not pid.startswith("\ufeff")
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(characters), inner),
    max_leaves=5,
)
names = st.text(characters).filter(
    lambda name: name not in {"pid", "_id", "id", "text", "title", "meta"}
)
pieces = st.binary(max_size=6) | st.sampled_from(
    [
        b"1\ttext",
        b"\t",
        b"\n",
        b"\r",
        b"\r\n",
        b"\x00",
        b"\xff",
        b"\xe2\x80\xa8",
        b'{"pid": 1, "text": "t"}',
        b'{"a": [',
        BOM,
    ]
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write one example after the other to."""
    return tmp_path_factory.mktemp("corpus") / "scratch"


@fixed
@given(
    rows=st.lists(st.tuples(tsv_pids, tsv_texts), max_size=8), end=st.sampled_from(["\n", "\r\n"])
)
def test_random_passages_are_read_from_tsv(
    scratch: Path, rows: list[tuple[str, str]], end: str
) -> None:
    """With any pid and text that TSV can express."""
    scratch.write_bytes("".join(f"{pid}\t{text}{end}" for pid, text in rows).encode())
    assert [Passage(pid, text) for pid, text in rows] == read(scratch, "tsv")


@fixed
@given(
    rows=st.lists(
        st.tuples(st.text(characters, min_size=1), texts, st.dictionaries(names, json_values)),
        max_size=4,
    ),
    ascii_only=st.booleans(),
    inside=st.booleans(),
)
def test_random_passages_are_read_from_json(
    scratch: Path, rows: list[tuple[str, str, dict[str, Any]]], ascii_only: bool, inside: bool
) -> None:
    """Escaped or not, with fields next to the text or inside "meta"."""
    lines = [
        json.dumps(
            {"pid": pid, "text": text, **({"meta": meta} if inside else meta)},
            ensure_ascii=ascii_only,
        )
        for pid, text, meta in rows
    ]
    scratch.write_bytes("\n".join(lines).encode())
    assert [Passage(*row) for row in rows] == read(scratch, "jsonl")


@fixed
@given(
    content=st.lists(pieces, max_size=12).map(b"".join).filter(lambda c: c[:2] != b"\x1f\x8b"),
    form=st.sampled_from(["tsv", "jsonl"]),
    limit=st.sampled_from([1, 8, MAX_LINE_BYTES]),
)
def test_random_bytes_give_a_row_per_line(
    scratch: Path, content: bytes, form: Format, limit: int
) -> None:
    """Every line that is not empty is one passage or one reject, in order.

    Only a source whose rows all fail alike is refused, at its end.
    """
    scratch.write_bytes(content)
    assume(is_text(scratch))
    *ended, last = content.removeprefix(BOM).split(b"\n")
    lines = [*(line.removesuffix(b"\r") for line in ended), last]
    expected = [(number, line) for number, line in enumerate(lines, start=1) if line]
    try:
        rows = read(scratch, form, max_line_bytes=limit)
    except SourceError as exc:
        assert f"none of its {len(expected)} rows is a passage" in str(exc)  # noqa: PT017
        return
    assert [number for number, _ in expected] == [row.line for row in rows]
    for row, (_, line) in zip(rows, expected, strict=True):
        if isinstance(row, Reject):
            assert (line[:4096], len(line)) == (row.raw, row.raw_bytes)
        else:
            assert len(line) <= limit


def is_text(path: Path) -> bool:
    """True if nothing at the begin of a file marks another kind."""
    try:
        with open_source(str(path)) as raw:
            return read_content(str(path), raw, as_text=True).kind == "text"
    except SourceError:
        return False


@fixed
@given(content=st.binary(max_size=64).map(lambda tail: b"\x1f\x8b" + tail))
def test_random_bytes_after_the_mark_of_gzip_do_not_raise(scratch: Path, content: bytes) -> None:
    """The last row is a reject of the stream."""
    scratch.write_bytes(content)
    rows = read(scratch, "tsv")
    assert isinstance(rows[-1], Reject)
    assert rows[-1].reason.startswith("the gzip stream")
