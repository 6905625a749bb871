"""Vectors in Parquet: shards and folders that are written, read and refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.core.records import EncodedPassage, Passage, Reject
from msmarco_qdrant.errors import OutputError, SourceError, UsageError
from msmarco_qdrant.sources.shard_file import (
    MANIFEST,
    Manifest,
    VectorType,
    read_column,
    read_footer,
    read_rows,
    shard_path,
    shard_paths,
    write_manifest,
    write_shard,
)
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.testing import HashingEncoder
from tests.vectors import header_of, table_of, vectors_of, write_folder


@pytest.fixture
def folder(tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder) -> Path:
    """A folder of three shards."""
    return write_folder(tmp_path / "vectors", passages, encoder)


def put_vectors(folder: Path, vectors: np.ndarray, passages: Sequence[Passage]) -> None:
    """Write the first shard again with other vectors."""
    put_table(folder, table_of(passages[:2]), vectors)


def put_table(folder: Path, table: pa.Table, vectors: np.ndarray) -> None:
    """Write the first shard again with other rows."""
    header = read_footer(shard_path(folder, 0)).header
    write_shard(shard_path(folder, 0), header, table, vectors.astype(header.dtype))


# ---- one shard -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_shard_is_read_as_written(
    tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder, dtype: VectorType
) -> None:
    """Header, strings and vectors; the folder holds no other file."""
    path, vectors = shard_path(tmp_path, 7), vectors_of(passages, encoder).astype(dtype)
    encoder_info = replace(encoder.info, prompts=Prompts("q: ", "p: "), max_seq_length=350)
    header = replace(
        header_of(passages, encoder, 7, dtype), encoder=encoder_info, rows=6, rejected=1
    )
    table = table_of(passages)
    write_shard(path, header, table, vectors)
    assert header == read_footer(path).header
    assert (5, 64) == (read_footer(path).passages, read_footer(path).dimension)
    assert [passage.pid for passage in passages] == read_column(path, "pid")
    (rows,) = read_rows(path)
    assert table.to_pydict() == rows.columns
    assert np.float32 == rows.vectors.dtype
    np.testing.assert_array_equal(vectors.astype(np.float32), rows.vectors)
    assert [tmp_path / "00007.parquet"] == list(tmp_path.iterdir()) == shard_paths(tmp_path)


def test_other_tools_can_read_the_vectors(folder: Path) -> None:
    """The column is a fixed-size list without nulls, in pages that carry checksums."""
    file = pq.ParquetFile(shard_path(folder, 0))
    field = file.schema_arrow.field("vector")
    assert pa.list_(pa.field("element", pa.float16(), nullable=False), 64) == field.type
    assert not field.nullable
    column = file.metadata.row_group(0).column(5)
    assert ("vector.list.element", "UNCOMPRESSED") == (column.path_in_schema, column.compression)


def test_a_shard_without_a_passage_is_one(tmp_path: Path, encoder: HashingEncoder) -> None:
    """All rows that it covers were rejected."""
    header = replace(header_of([], encoder), rows=3, rejected=3)
    write_shard(tmp_path / "0.parquet", header, table_of([]), np.zeros((0, 64), np.float16))
    assert 0 == read_footer(tmp_path / "0.parquet").passages
    assert [] == read_column(tmp_path / "0.parquet", "pid")
    assert [] == [row for rows in read_rows(tmp_path / "0.parquet") for row in rows.vectors]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda vectors: vectors[1:],
        lambda vectors: vectors[:, 1:],
        lambda vectors: vectors.astype(np.float32),
    ],
)
def test_vectors_that_do_not_fit_their_header_are_refused(
    tmp_path: Path,
    passages: Sequence[Passage],
    encoder: HashingEncoder,
    spoil: Callable[[np.ndarray], np.ndarray],
) -> None:
    """A vector too few, too short, or of another type."""
    vectors = spoil(vectors_of(passages, encoder).astype(np.float16))
    with pytest.raises(UsageError, match=r"must have vectors of float16 \(5, 64\)"):
        write_shard(
            tmp_path / "0.parquet", header_of(passages, encoder), table_of(passages), vectors
        )
    assert [] == list(tmp_path.iterdir())


def test_error_of_writing_contains_the_final_path(
    tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """It is not the path of the temporary file."""
    vectors = vectors_of(passages, encoder).astype(np.float16)
    path = shard_path(tmp_path / "nowhere", 0)
    with pytest.raises(OutputError, match=r"cannot write .*00000\.parquet"):
        write_shard(path, header_of(passages, encoder), table_of(passages), vectors)
    manifest = Manifest(0, 0, 0, encoder.info.fingerprint, "float16")
    with pytest.raises(OutputError, match=r"cannot write .*manifest\.json"):
        write_manifest(tmp_path / "nowhere", manifest)


def with_header(path: Path, content: bytes | None) -> None:
    """Write the file again with another header."""
    table = pq.read_table(path)
    pq.write_table(
        table.replace_schema_metadata({b"msmarco-qdrant": content} if content else None), path
    )


def header_json(path: Path, **changed: object) -> bytes:
    """The header with something changed."""
    content = json.loads(pq.read_metadata(path).metadata[b"msmarco-qdrant"])
    return json.dumps({**content, **changed}).encode()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no such file|is missing"),
        (lambda path: path.write_bytes(b"1\ttext\n"), "cannot be read as Parquet"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "truncated or damaged"),
        (lambda path: with_header(path, None), "must be a shard .*as a SOURCE"),
        (lambda path: with_header(path, b"nonsense"), "the header of .* cannot be read"),
        (lambda path: with_header(path, b"[]"), "the header of .* cannot be read"),
        (
            lambda path: with_header(path, header_json(path, more=1)),
            "the header of .* cannot be read",
        ),
        (lambda path: with_header(path, header_json(path, encoder=1)), "cannot be read"),
        (lambda path: with_header(path, header_json(path, version=2)), "version 1, got 2"),
        (
            lambda path: with_header(path, header_json(path, dtype="float32")),
            "64 numbers of float32",
        ),
    ],
)
def test_invalid_shard_is_reported(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """With the expected and found values and the next step."""
    path = shard_path(folder, 1)
    spoil(path)
    with pytest.raises(SourceError, match=message):
        read_footer(path)
    with pytest.raises(SourceError, match=message):
        VectorShards(folder)


def test_other_columns_are_reported(folder: Path) -> None:
    """As in a file that another tool rewrote."""
    path = shard_path(folder, 0)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["meta"]), path)
    with pytest.raises(SourceError, match=r"must have the columns .* got pid, text, text_digest"):
        read_footer(path)
    with pytest.raises(SourceError, match="no column 'meta'"):
        read_column(path, "meta")


def test_a_flipped_bit_is_reported(folder: Path) -> None:
    """Only a checksum detects it in a vector."""
    path = shard_path(folder, 0)
    column = pq.read_metadata(path).row_group(0).column(5)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"00000\.parquet.*CRC.*run the same encode"):
        list(VectorShards(folder))


# ---- a folder --------------------------------------------------------------------------------


def test_a_folder_gives_its_passages_with_their_vectors(
    folder: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """In order, with unit length, more than once, and with the position."""
    shards = VectorShards(folder)
    assert encoder.info == shards.encoder
    assert (5, 0) == (shards.size, shards.position)
    assert shard_paths(folder) == list(shards.paths)
    for _ in range(2):
        rows, positions = [], []
        for row in shards:
            assert isinstance(row, EncodedPassage)
            rows.append(row)
            positions.append(shards.position)
        assert [1, 2, 3, 4, 5] == positions
        assert list(passages) == [row.passage for row in rows]
        found = np.stack([row.vector for row in rows])
        assert np.float32 == found.dtype
        np.testing.assert_allclose(vectors_of(passages, encoder), found, atol=1e-3)
        np.testing.assert_allclose(1.0, np.linalg.norm(found, axis=1), atol=1e-6)
    third = rows[2].passage
    assert (str(shard_path(folder, 1)), 1) == (third.source, third.line)


class Dot(HashingEncoder):
    """An encoder for the dot product."""

    info = property(lambda self: replace(self._info, similarity="dot"))


@pytest.mark.parametrize(
    ("encoder", "number", "expected"), [(Dot(), 3.0, 3.0), (HashingEncoder(), 1e30, 1 / 8)]
)
def test_only_vectors_for_cosine_are_scaled(
    tmp_path: Path,
    passages: Sequence[Passage],
    encoder: HashingEncoder,
    number: float,
    expected: float,
) -> None:
    """To unit length, also if float32 cannot hold the square of a number."""
    folder = write_folder(tmp_path / "vectors", passages, encoder, dtype="float32")
    put_vectors(folder, np.full((2, 64), number), passages)
    row = next(iter(VectorShards(folder)))
    assert isinstance(row, EncodedPassage)
    np.testing.assert_allclose(np.full(64, expected), row.vector)


def test_a_vector_that_cannot_be_searched_is_a_reject(
    folder: Path, passages: Sequence[Passage]
) -> None:
    """Zero, infinite or NaN: the reject has its file, line and row."""
    for value in (0.0, np.inf, np.nan):
        vectors = np.full((2, 64), 0.125)
        vectors[1] = value
        put_vectors(folder, vectors, passages)
        first, second, *others = VectorShards(folder)
        assert isinstance(first, EncodedPassage)
        assert isinstance(second, Reject)
        assert "its vector is zero or not finite" == second.reason
        assert (str(shard_path(folder, 0)), 2) == (second.source, second.line)
        assert b'"pid": "2"' in second.raw
        assert len(second.raw) == second.raw_bytes
        assert 3 == len(others)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("text", "another text", "its text was changed after it was encoded: its digest must"),
        ("meta", '{"x": 1}', "its meta was changed after it was encoded: its digest must"),
        ("text_digest", "0" * 32, "its digest must be 0000"),
        ("text", " ", "the text is empty"),
        ("pid", "", "no pid"),
        ("meta", "[1]", "the JSON must be an object"),
        ("meta", '{"x": NaN}', "non-finite"),
        ("meta", '{"x": "\\ud800"}', "lone surrogate"),
    ],
)
def test_a_row_that_is_not_what_was_encoded_is_a_reject(
    folder: Path,
    passages: Sequence[Passage],
    encoder: HashingEncoder,
    column: str,
    value: str,
    reason: str,
) -> None:
    """The other row of its batch is read."""
    table = table_of(passages[:2])
    index = table.column_names.index(column)
    changed = pa.array([table[column][0].as_py(), value])
    put_table(folder, table.set_column(index, column, changed), vectors_of(passages[:2], encoder))
    rows = list(VectorShards(folder))
    rejects = [row for row in rows if isinstance(row, Reject)]
    assert [True] == [reason in reject.reason for reject in rejects]
    assert isinstance(rows[0], EncodedPassage)


def test_a_text_that_is_not_utf8_is_a_reject(
    folder: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Its digest differs."""
    table = table_of(passages[:2])
    broken = pa.array([b"london", b"\xff\xfe"]).view(pa.string())
    put_table(folder, table.set_column(1, "text", broken), vectors_of(passages[:2], encoder))
    rejects = [row for row in VectorShards(folder) if isinstance(row, Reject)]
    assert [True, True] == ["text was changed" in reject.reason for reject in rejects]


def swap_shards(folder: Path) -> None:
    """Put the second in the first's place."""
    shard_path(folder, 1).replace(shard_path(folder, 0))
    shard_path(folder, 2).replace(shard_path(folder, 1))
    (folder / MANIFEST).write_text(
        (folder / MANIFEST).read_text().replace('"shards": 3', '"shards": 2')
    )


def mix_in(
    folder: Path, encoder: HashingEncoder, dtype: VectorType = "float16", count: int = 2
) -> None:
    """Put a shard of another encoder, type or source among them."""
    rows = [Passage("1", "london"), Passage("2", "paris")][:count]
    header = header_of(rows, encoder, 1, dtype)
    vectors = vectors_of(rows, encoder).astype(dtype)
    write_shard(shard_path(folder, 1), header, table_of(rows), vectors)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / MANIFEST).unlink(), "not complete: 3 shards.*again to finish it"),
        (
            lambda f: [p.unlink() for p in f.iterdir()],
            "must be a DIR .* got a folder without vectors",
        ),
        (lambda f: (f / MANIFEST).write_text("{"), r"the manifest .*manifest\.json cannot be read"),
        (
            lambda f: (f / MANIFEST).write_text("[]"),
            r"the manifest .*manifest\.json cannot be read",
        ),
        (lambda f: (f / MANIFEST).write_text('{"version": 9}'), "version 1, got 9"),
        (lambda f: shard_path(f, 1).unlink(), r"00001\.parquet is missing: .* lists 3 shards"),
        (lambda f: (f / "x.parquet").touch(), r"x\.parquet is not in .*got 4 files"),
        (swap_shards, r"00000\.parquet does not belong .*number must be 0, got 1"),
        (lambda f: mix_in(f, HashingEncoder(salt="x")), r"00001\.parquet .*fingerprint must"),
        (lambda f: mix_in(f, HashingEncoder(), "float32"), "dtype must be float16, got float32"),
        (lambda f: mix_in(f, HashingEncoder(), count=1), r"must hold 5 passages as .*, got 4"),
        (
            lambda f: write_folder(f, [Passage("1", "x"), Passage("2", "y")], HashingEncoder()),
            "is not in",
        ),
    ],
)
def test_invalid_folder_is_reported(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """On construction, with the file and the expected and found values."""
    spoil(folder)
    with pytest.raises(SourceError, match=message):
        VectorShards(folder)


def test_not_a_folder_is_reported(tmp_path: Path, encoder: HashingEncoder) -> None:
    """A file, a missing path, or a folder of an empty source."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(SourceError, match=r"must be a DIR .* got no folder"):
            VectorShards(place)
    with pytest.raises(SourceError, match="its source was empty"):
        VectorShards(write_folder(tmp_path / "empty", [], encoder))
