"""Splits of files give the rows of the whole, wherever they are cut."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.distributed.keys import KeyReader
from msmarco_qdrant.distributed.splits import lines_before, plan_splits
from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.extents import ExtentRows, list_files, next_line

LINES = [
    "1\tLondon is a city",
    "no tab here",
    "",
    "2\tParis, with a form feed \f and \u2028",
    "3\t",
    "",
    "4\t" + "long " * 40,
    "5\tlast, without an end of line",
]


def tsv(folder: Path) -> Path:
    r"""Lines with a byte order mark, rejects, empty lines, and `\r\n`."""
    path = folder / "a.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(LINES).encode())
    return path


def jsonl(folder: Path) -> Path:
    """JSON lines, one of them without a text."""
    rows = [{"pid": str(n), "text": f"text {n}", "year": n} for n in range(20)]
    lines = [json.dumps(row) for row in rows] + ['{"pid": "x"}', ""]
    path = folder / "a.jsonl"
    path.write_text("\n".join(lines))
    return path


def parquet(folder: Path) -> Path:
    """A Parquet file with several row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"pid": str(n), "text": f"text {n}" if n % 5 else None} for n in range(50)]
    path = folder / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    return path


def gzipped(folder: Path) -> Path:
    """A compressed file, which is one part."""
    path = folder / "a.tsv.gz"
    path.write_bytes(gzip.compress("\n".join(LINES).encode()))
    return path


def csv(folder: Path) -> Path:
    """A table with a line end in a cell, which is one part."""
    path = folder / "a.csv"
    path.write_text('pid,text\n1,"one\nand more"\n2,two\n3,\n')
    return path


def empty(folder: Path) -> Path:
    """A file without a row."""
    path = folder / "empty.tsv"
    path.write_bytes(b"")
    return path


MAKERS = (tsv, jsonl, parquet, gzipped, csv, empty)


def everything(row: Passage | Reject) -> tuple[object, ...]:
    """All fields of a row, also those that its comparison leaves out."""
    if isinstance(row, Reject):
        return (row.source, row.line, row.reason, row.raw, row.raw_bytes)
    return (row.pid, row.text, row.meta, row.source, row.line, row.raw)


def rows_of_splits(paths: Sequence[Path], size: int) -> list[tuple[object, ...]]:
    """The rows of all splits of so many bytes, each read on its own."""
    corpus = Corpus([str(path) for path in paths], max_line_bytes=120)
    splits = plan_splits(list_files(corpus), size, next_line)
    counts = []
    for split in splits:
        reader = KeyReader(split, corpus.reading, partitions=2)
        assert 2 <= len([*reader.chunks()])
        counts.append(reader.count())
    return [
        everything(row)
        for split, count, before in zip(splits, counts, lines_before(splits, counts), strict=True)
        for row in ExtentRows(split.extents, corpus.reading, before, (), count.rows)
        if isinstance(row, Passage | Reject)
    ]


@pytest.mark.parametrize("size", [1, 7, 20, 64, 1000, 10**6])
@pytest.mark.parametrize("make", MAKERS)
def test_any_cut_gives_the_rows_and_lines_of_the_file(
    make: Callable[[Path], Path], size: int, tmp_path: Path
) -> None:
    """Byte order mark, empty lines, lines that are too long and a last one without an end."""
    path = make(tmp_path)
    expected = [everything(row) for row in Corpus(path, max_line_bytes=120)]

    assert expected == rows_of_splits([path], size)


@pytest.mark.parametrize("size", [50, 10**6])
def test_a_split_may_cover_several_files(size: int, tmp_path: Path) -> None:
    """Small files are read together; each counts its own lines."""
    paths = [make(tmp_path) for make in MAKERS]
    corpus = Corpus([str(path) for path in paths], max_line_bytes=120)

    assert [everything(row) for row in corpus] == rows_of_splits(paths, size)


def test_every_cut_falls_on_a_line(tmp_path: Path) -> None:
    """The next line of each byte is the first that begins there or later."""
    path = tmp_path / "lines"
    path.write_bytes(b"ab\n\nc\nlast")

    assert [0, 3, 3, 3, 4, 6, 6, 10, 10, 10, 10] == [next_line(str(path), n) for n in range(11)]


def test_a_file_that_grows_is_cut_up_to_its_listed_end(tmp_path: Path) -> None:
    """A line that was longer when the file was cut makes no part beyond its end."""
    path = tmp_path / "a.tsv"
    path.write_text("1\tone\n2\ttwo\n")
    files = list_files(Corpus(path))
    splits = plan_splits(files, 5, lambda _path, offset: 2 * offset)

    extents = [extent for split in splits for extent in split.extents]
    assert (0, 12) == (extents[0].start, extents[-1].stop)
    assert [extent.stop for extent in extents[:-1]] == [extent.start for extent in extents[1:]]
    assert all(extent.bytes > 0 for extent in extents)


def test_a_repeated_row_is_rejected_as_in_one_process(tmp_path: Path) -> None:
    """Its reason, line and raw bytes are those of an ingest by one process."""
    path = tmp_path / "a.tsv"
    path.write_text("1\tone\n2\ttwo\n1\tone again\n")
    corpus = Corpus(path)
    (split,) = plan_splits(list_files(corpus), 1000, next_line)

    *_, last = ExtentRows(split.extents, corpus.reading, [0], [2], 3)

    assert last == Reject(
        str(path),
        3,
        "pid '1' was read before in this run; the first one is used",
        b"1\tone again",
        11,
    )


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    """A repeated passage is none any more, or the file became shorter."""
    path = tmp_path / "a.tsv"
    path.write_text("1\tone\n2\ttwo\n")
    corpus = Corpus(path)
    (split,) = plan_splits(list_files(corpus), 1000, next_line)

    path.write_text("1 one \n2\ttwo\n")
    with pytest.raises(SourceError, match="was changed while it was read"):
        list(ExtentRows(split.extents, corpus.reading, [0], [0], 2))
    path.write_text("1 one 2 two\n")
    with pytest.raises(SourceError, match="was changed while it was read"):
        list(ExtentRows(split.extents, corpus.reading, [0], [], 2))
    path.write_text("1\tone\n")
    with pytest.raises(SourceError, match="has become shorter"):
        list(ExtentRows(split.extents, corpus.reading, [0], [], 2))
