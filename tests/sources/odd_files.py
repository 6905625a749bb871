"""Files as users have them, made here: known data sets, other formats, damaged and hostile ones.

`READ` are read: the expected passages, and how many rows are rejected. `REFUSED` are refused: a
part of the one-line error.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from msmarco_qdrant.core.records import Passage

RIVER, LAKE = "A river flows to the sea.", "A lake lies still."
PLAIN = f"7\t{RIVER}\n8\t{LAKE}\n".encode()
TWO = [Passage("7", RIVER), Passage("8", LAKE)]


@dataclass(frozen=True, slots=True)
class Readable:
    """A file that is read: its passages, and the number of its rejects."""

    content: bytes
    passages: list[Passage]
    rejected: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is refused, with a part of the message."""

    content: bytes
    message: str
    options: tuple[str, ...] = field(default=())


def lines(*rows: Mapping[str, Any]) -> bytes:
    """JSON lines."""
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    """What a function writes to a file."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def parquet(**columns: Any) -> bytes:
    """A Parquet file of these columns."""
    return written(lambda file: pq.write_table(pa.table(columns), file))


def arrow_stream(table: pa.Table) -> bytes:
    """A stream of Arrow, as `datasets` writes it."""

    def write(file: io.BytesIO) -> None:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)

    return written(write)


def tar(mode: str = "w") -> bytes:
    """A tar archive of a folder with two files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("data")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in (("data/collection.tsv", PLAIN), ("data/queries.tsv", b"1\tsea\n")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def archive(**members: str) -> bytes:
    """A zip archive."""

    def write(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members.items():
                packed.writestr(name, content)

    return written(write)


def sqlite() -> bytes:
    """A database with a table of passages."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table passages (pid text, text text)")
        return bytes(database.serialize())


TABLE = pa.table(
    {"id": ["7", "8"], "text": [RIVER, LAKE], "tags": [["a"], []], "at": [{"x": 1}] * 2}
)
TABLE_ROWS = [
    Passage("7", RIVER, {"tags": ["a"], "at": {"x": 1}}),
    Passage("8", LAKE, {"tags": [], "at": {"x": 1}}),
]

DATA_SETS: dict[str, Readable] = {
    "msmarco v1 collection.tsv": Readable(PLAIN, TWO),
    "msmarco v1 docs.tsv": Readable(
        b"D7\thttps://e.org/r\tRivers\tA river flows.\nD8\thttp://e.org/l\t\tA lake lies.\n",
        [
            Passage("D7", "Rivers A river flows.", {"url": "https://e.org/r"}),
            Passage("D8", "A lake lies.", {"url": "http://e.org/l"}),
        ],
    ),
    "msmarco v2 passages": Readable(
        lines({"pid": "p_0_7", "passage": RIVER, "spans": "(0,9)", "docid": "d_0_1"}),
        [Passage("p_0_7", RIVER, {"spans": "(0,9)", "docid": "d_0_1"})],
    ),
    "msmarco v2 documents": Readable(
        lines({"url": "u", "title": "Rivers", "headings": "h", "body": RIVER, "docid": "d_0_1"}),
        [Passage("d_0_1", f"Rivers {RIVER}", {"url": "u", "headings": "h"})],
    ),
    "msmarco v2.1 segments": Readable(
        lines({"docid": "d#1", "title": "Rivers", "segment": RIVER, "start_char": 0}),
        [Passage("d#1", f"Rivers {RIVER}", {"start_char": 0})],
    ),
    "dpr psgs_w100.tsv": Readable(
        b'id\ttext\ttitle\n1\t"A ""big"" river, it flows"\tRiver\n2\t"A lake, it lies"\tLake\n',
        [Passage("1", 'River A "big" river, it flows'), Passage("2", "Lake A lake, it lies")],
    ),
    "beir corpus.jsonl": Readable(
        lines({"_id": "7", "title": "Rivers", "text": RIVER, "metadata": {}}),
        [Passage("7", f"Rivers {RIVER}", {"metadata": {}})],
    ),
    "anserini": Readable(lines({"id": "7", "contents": RIVER}), [Passage("7", RIVER)]),
    "tevatron": Readable(
        lines({"docid": "7", "title": "Rivers", "text": RIVER}), [Passage("7", f"Rivers {RIVER}")]
    ),
    "hugging face parquet": Readable(written(lambda file: pq.write_table(TABLE, file)), TABLE_ROWS),
}

READ: dict[str, Readable] = {
    **DATA_SETS,
    "quotes in plain tsv": Readable(
        b'1\t"Quoted," it says.\n2\t"A whole sentence."\n3\tA 5" pipe\n',
        [
            Passage("1", '"Quoted," it says.'),
            Passage("2", '"A whole sentence."'),
            Passage("3", 'A 5" pipe'),
        ],
    ),
    "one quoted text in plain tsv": Readable(
        b'1\t"A sentence."\n', [Passage("1", '"A sentence."')]
    ),
    "header in capitals": Readable(
        f"ID\tText\tTitle\n7\t{RIVER}\tRivers\n".encode(), [Passage("7", f"Rivers {RIVER}")]
    ),
    "header and unquoted quotes": Readable(
        b'id\ttext\n1\tA "big" river\n2\t"To be," it says\n',
        [Passage("1", 'A "big" river'), Passage("2", '"To be," it says')],
    ),
    "pandas index": Readable(f"\tpid\ttext\n0\t7\t{RIVER}\n1\t8\t{LAKE}\n".encode(), TWO),
    "pandas index read again": Readable(
        f"Unnamed: 0,pid,text\n0,7,{RIVER}\n1,8,{LAKE}\n".encode(), TWO
    ),
    "pandas line ends in a cell": Readable(
        b'pid\ttext\n7\t"A river\n\nflows ""here"""\n8\tA lake\n',
        [Passage("7", 'A river\n\nflows "here"'), Passage("8", "A lake")],
    ),
    "csv": Readable(
        b'id,text,lang\r\n7,"A river, it flows",en\r\n8,A lake,\r\n',
        [Passage("7", "A river, it flows", {"lang": "en"}), Passage("8", "A lake")],
    ),
    "csv with semicolons": Readable(f"id;text\n7;{RIVER}\n8;{LAKE}\n".encode(), TWO),
    "csv with meta": Readable(
        b'id,text,meta\n7,A river,"{""year"": 2024}"\n', [Passage("7", "A river", {"year": 2024})]
    ),
    "csv without a header": Readable(
        f"7,{RIVER}\n8,{LAKE}\n".encode(), TWO, options=("--format", "csv")
    ),
    "csv with a broken row": Readable(
        b'id,text\n1,"A river" x\n2,A lake\n', [Passage("2", "A lake")], rejected=1
    ),
    "quotes in every cell": Readable(f'"7"\t"{RIVER}"\n"8"\t"{LAKE}"\n'.encode(), TWO),
    "rows of another width": Readable(
        b"id\ttext\tlang\n1\tA river\n2\tA lake\ten\n3\ta\tb\tc\n",
        [Passage("2", "A lake", {"lang": "en"})],
        rejected=2,
    ),
    "columns by number": Readable(
        f"x\t{RIVER}\t7\ny\t{LAKE}\t8\n".encode(),
        TWO,
        options=("--pid-field", "3", "--text-field", "2"),
    ),
    "tabs in the text": Readable(
        b"7\tA\triver\n", [Passage("7", "A\triver")], options=("--format", "tsv")
    ),
    "other names": Readable(
        lines({"key": "7", "sentence": RIVER, "head": "Rivers", "x": 1, "y": 2}),
        [Passage("7", f"Rivers {RIVER}", {"y": 2})],
        options=(
            "--pid-field",
            "key",
            "--text-field",
            "sentence",
            "--title-field",
            "head",
            "--skip-field",
            "x",
        ),
    ),
    "other names in parquet": Readable(
        parquet(key=["7", "8"], sentence=[RIVER, LAKE], raw=[b"\xff", b"\xfe"]),
        TWO,
        options=("--pid-field", "key", "--text-field", "sentence", "--skip-field", "raw"),
    ),
    "gzip": Readable(gzip.compress(PLAIN), TWO),
    "gzip of two members": Readable(gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:]), TWO),
    "bzip2": Readable(bz2.compress(PLAIN), TWO),
    "xz": Readable(lzma.compress(PLAIN), TWO),
    "lzma": Readable(lzma.compress(PLAIN, lzma.FORMAT_ALONE), TWO),
    "zstd": Readable(bytes(pa.compress(PLAIN, "zstd", asbytes=True)), TWO),
    "gzip that is cut off": Readable(gzip.compress(PLAIN * 2)[:-4], TWO, rejected=3),
    "bzip2 that is cut off": Readable(
        bz2.compress(PLAIN) + bz2.compress(b"9\tmore\n")[:-4],
        [*TWO, Passage("9", "more")],
        rejected=1,
    ),
    "jsonl in xz": Readable(lzma.compress(lines({"id": 7, "text": RIVER})), TWO[:1]),
    "arrow file": Readable(written(lambda f: pyarrow.feather.write_feather(TABLE, f)), TABLE_ROWS),
    "arrow stream": Readable(arrow_stream(TABLE), TABLE_ROWS),
    "arrow stream in gzip": Readable(gzip.compress(arrow_stream(TABLE)), TABLE_ROWS),
    "byte order mark": Readable(b"\xef\xbb\xbf" + PLAIN, TWO),
    "byte order mark and header": Readable(b"\xef\xbb\xbfid\ttext\n" + PLAIN, TWO),
    "pids like marks": Readable(
        b"PAR1\tA river\nBZh9\tA lake\n", [Passage("PAR1", "A river"), Passage("BZh9", "A lake")]
    ),
    "pids in brackets": Readable(
        b"[1]\tA river\n{2}\tA lake\n", [Passage("[1]", "A river"), Passage("{2}", "A lake")]
    ),
    "latin-1 in one row": Readable(PLAIN + b"9\tcaf\xe9\n", TWO, rejected=1),
    "a pid twice": Readable(PLAIN + PLAIN[:9] + b"\n", TWO, rejected=1),
    "no end of the last line": Readable(PLAIN[:-1], TWO),
}

_TRAINING = {"query_id": "1", "query": "sea", "positive_passages": [{"docid": "7", "text": RIVER}]}

REFUSED: dict[str, Refused] = {
    "tar": Refused(tar(), "tar archive that holds data/collection.tsv: extract it with `tar -xf "),
    "tar.gz": Refused(tar("w:gz"), "a tar archive that holds data/collection.tsv"),
    "tar.bz2": Refused(tar("w:bz2"), "a tar archive that holds data/collection.tsv"),
    "tar.xz": Refused(tar("w:xz"), "a tar archive that holds data/collection.tsv"),
    "tar.zst": Refused(bytes(pa.compress(tar(), "zstd", asbytes=True)), "a tar archive"),
    "zip": Refused(archive(**{"my data.tsv": PLAIN.decode()}), "'my data.tsv'`, then pass my data"),
    "xlsx": Refused(archive(**{"[Content_Types].xml": "<x/>"}), "is an Excel or Word file"),
    "npz": Refused(archive(**{"arr_0.npy": "x"}), "is an archive of NumPy arrays"),
    "7z": Refused(b"7z\xbc\xaf\x27\x1c" + bytes(32), "a 7z archive: extract it with `7z e "),
    "rar": Refused(b"Rar!\x1a\x07\x01\x00" + bytes(32), "a rar archive: extract it with `unrar e "),
    "gzip in gzip": Refused(gzip.compress(gzip.compress(PLAIN)), "compressed twice, gzip inside"),
    "zip in gzip": Refused(gzip.compress(archive(a="b")), "is a zip archive compressed by gzip"),
    "parquet in gzip": Refused(gzip.compress(parquet(a=[1])), "Parquet compressed by gzip"),
    "lz4": Refused(b"\x04\x22\x4d\x18" + bytes(20), "compressed by lz4"),
    "pdf": Refused(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "is a PDF"),
    "pickle": Refused(pickle.dumps([RIVER]), "is a Python pickle"),
    "sqlite": Refused(sqlite(), "is a SQLite database"),
    "utf-16": Refused(PLAIN.decode().encode("utf-16"), "is UTF-16 text: convert it with `iconv"),
    "utf-16 without its mark": Refused(PLAIN.decode().encode("utf-16-le"), "as UTF-16 text does"),
    "html": Refused(b"<!DOCTYPE html>\n<html><p>404</p></html>\n", "is an HTML page"),
    "xml": Refused(b'<?xml version="1.0"?>\n<a/>\n', "is XML"),
    "git-lfs": Refused(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "`git lfs pull`"
    ),
    "other bytes": Refused(bytes(range(256)) * 4, "a binary file of an unknown kind"),
    "json array": Refused(json.dumps([{"id": 1, "text": RIVER}]).encode(), "`jq -c '.[]' "),
    "json array in gzip": Refused(gzip.compress(b'[{"id": 1}]'), "`gzip -dc "),
    "json over lines": Refused(
        json.dumps({"id": 1, "text": RIVER}, indent=1).encode(), "`jq -c '.' "
    ),
    "parquet that is cut off": Refused(
        parquet(pid=["1"], text=["x"])[:-9], "cannot be read as Parquet"
    ),
    "parquet without a text": Refused(
        parquet(id=["1"], sentence=["x"]), "has the columns id, sentence, none of them named text"
    ),
    "parquet as tsv": Refused(parquet(a=[1]), "is Parquet, not tsv", ("--format", "tsv")),
    "three columns": Refused(
        f"7\t{RIVER}\tRiver\n".encode(), "TSV with 3 columns and no header that names them"
    ),
    "two and three columns": Refused(PLAIN + b"9\tx\ty\n", "TSV with 3 columns"),
    "qrels": Refused(b"1\t0\t7\t1\n", "holds judgments, not passages"),
    "unknown header": Refused(
        b"PassageID\tPassage Text\n" + PLAIN, "a header of unknown names: PassageID, Passage Text"
    ),
    "header without a text": Refused(b"docid\tsummary\n" + PLAIN, "none of them named text"),
    "header without a pid": Refused(b"key\ttext\tlang\nx\ty\tz\n", "none of them named pid"),
    "header with a name twice": Refused(b"id\ttext\ttext\n1\ta\tb\n", "2 columns are named 'text'"),
    "field that is missing": Refused(PLAIN, "a header that has key", ("--pid-field", "key")),
    "number out of range": Refused(PLAIN, "a number of 1 to 2, got '3'", ("--text-field", "3")),
    "csv without a header": Refused(f"7,{RIVER}\n".encode(), "--format csv --pid-field 1"),
    "plain text": Refused(b"A river flows\nA lake lies\n", "number them with `nl -ba -w1 "),
    "old mac": Refused(PLAIN.replace(b"\n", b"\r"), "a carriage return alone"),
    "training rows": Refused(
        lines(*[_TRAINING] * 3), "none of its 3 rows is a passage; line 1: no pid: expected a field"
    ),
    "20,000 rows of other names": Refused(
        lines(*[{"key": "7", "sentence": RIVER}] * 20_000),
        "none of its first 1,000 rows is a passage; line 1: no pid: expected a field 'pid', '_id' "
        "or 'id' (or docid, doc_id, docno, passage_id), got key, sentence",
    ),
    "blank texts": Refused(b"1\t \n2\t \n", "none of its 2 rows is a passage; line 1: the text is"),
    "one bad row": Refused(b"1\t \n", "the source has no passage: its only row was rejected"),
}
