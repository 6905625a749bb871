"""Vectors in Parquet: written whole, read back as they were, refused when they are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msmarco_qdrant.core.records import EncodedPassage, Passage, Prompts, Reject
from msmarco_qdrant.errors import OutputError, SourceError, UsageError
from msmarco_qdrant.sources.shard_file import (
    MANIFEST,
    Manifest,
    VectorType,
    read_column,
    read_footer,
    read_manifest,
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
    """Write the first shard anew with other vectors."""
    first = shard_path(folder, 0)
    write_shard(
        first, read_footer(first).header, table_of(passages[:2]), vectors.astype(np.float16)
    )


# ---- one shard -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_shard_comes_back_as_it_was_written(
    tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder, dtype: VectorType
) -> None:
    """Header, strings and vectors, and nothing else lies beside it."""
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


def test_other_tools_find_lists_of_numbers(folder: Path) -> None:
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
def test_what_does_not_fit_its_header_is_not_written(
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


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """The file's name, not that of the one it is written into first."""
    vectors = vectors_of(passages, encoder).astype(np.float16)
    path = shard_path(tmp_path / "nowhere", 0)
    with pytest.raises(OutputError, match=r"cannot write .*00000\.parquet"):
        write_shard(path, header_of(passages, encoder), table_of(passages), vectors)
    manifest = Manifest(0, 0, 0, encoder.info.fingerprint, "float16")
    with pytest.raises(OutputError, match=r"cannot write .*manifest\.json"):
        write_manifest(tmp_path / "nowhere", manifest)


def with_header(path: Path, content: bytes | None) -> None:
    """Write the file anew with another header."""
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
def test_not_a_shard_is_reported(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """By what was found, what was expected, and what to do."""
    path = shard_path(folder, 1)
    spoil(path)
    with pytest.raises(SourceError, match=message):
        read_footer(path)
    with pytest.raises(SourceError, match=message):
        VectorShards(folder)


def test_other_columns_are_reported(folder: Path) -> None:
    """As of a file that another tool has written back."""
    path = shard_path(folder, 0)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["meta"]), path)
    with pytest.raises(SourceError, match=r"must have the columns .* got pid, text, text_digest"):
        read_footer(path)
    with pytest.raises(SourceError, match="no column 'meta'"):
        read_column(path, "meta")


def test_a_flipped_bit_is_reported(folder: Path) -> None:
    """Nothing but a checksum can tell it in a vector."""
    path = shard_path(folder, 0)
    column = pq.read_metadata(path).row_group(0).column(5)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"00000\.parquet.*CRC.*run the same `msmarco-qdrant enc"):
        list(VectorShards(folder))


# ---- a folder --------------------------------------------------------------------------------


def test_a_folder_gives_its_passages_with_their_vectors(
    folder: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """In order, with unit length, as often as it is asked, and tells how far it is."""
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


def test_vectors_of_a_dot_product_keep_their_length(
    tmp_path: Path, passages: Sequence[Passage]
) -> None:
    """Which means something there."""

    class Dot(HashingEncoder):
        """An encoder for the dot product."""

        info = property(lambda self: replace(self._info, similarity="dot"))

    folder = write_folder(tmp_path / "vectors", passages, Dot(), dtype="float32")
    put = np.full((2, 64), 3.0, np.float32)
    first = shard_path(folder, 0)
    write_shard(first, read_footer(first).header, table_of(passages[:2]), put)
    row = next(iter(VectorShards(folder)))
    assert isinstance(row, EncodedPassage)
    np.testing.assert_array_equal(put[0], row.vector)


def test_lengths_that_float32_cannot_square_are_none_too_many(
    tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """The length is computed in float64."""
    folder = write_folder(tmp_path / "vectors", passages[:2], encoder, dtype="float32")
    first = shard_path(folder, 0)
    put = np.full((2, 64), 1e30, np.float32)
    write_shard(first, read_footer(first).header, table_of(passages[:2]), put)
    row = next(iter(VectorShards(folder)))
    assert isinstance(row, EncodedPassage)
    np.testing.assert_allclose(np.full(64, 1 / 8), row.vector)


def test_a_vector_that_cannot_be_searched_is_a_reject(
    folder: Path, passages: Sequence[Passage]
) -> None:
    """Zero, infinite or no number: with its file, line and row."""
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
    """Its neighbors come through."""
    table = table_of(passages[:2])
    index = table.column_names.index(column)
    changed = pa.array([table[column][0].as_py(), value])
    vectors = vectors_of(passages[:2], encoder).astype(np.float16)
    first = shard_path(folder, 0)
    write_shard(first, read_footer(first).header, table.set_column(index, column, changed), vectors)
    rows = list(VectorShards(folder))
    rejects = [row for row in rows if isinstance(row, Reject)]
    assert [True] == [reason in reject.reason for reject in rejects]
    assert isinstance(rows[0], EncodedPassage)


def test_a_text_that_is_not_utf8_is_a_reject(
    folder: Path, passages: Sequence[Passage], encoder: HashingEncoder
) -> None:
    """Its digest tells, and nothing breaks."""
    table = table_of(passages[:2])
    broken = pa.array([b"london", b"\xff\xfe"]).view(pa.string())
    vectors = vectors_of(passages[:2], encoder).astype(np.float16)
    first = shard_path(folder, 0)
    write_shard(first, read_footer(first).header, table.set_column(1, "text", broken), vectors)
    rejects = [row for row in VectorShards(folder) if isinstance(row, Reject)]
    assert [True, True] == ["text was changed" in reject.reason for reject in rejects]


def swap_shards(folder: Path) -> None:
    """Put the second in the first's place."""
    shard_path(folder, 1).replace(shard_path(folder, 0))
    shard_path(folder, 2).replace(shard_path(folder, 1))
    (folder / MANIFEST).write_text(
        (folder / MANIFEST).read_text().replace('"shards": 3', '"shards": 2')
    )


def mix_in(folder: Path, encoder: HashingEncoder, dtype: VectorType = "float16") -> None:
    """Put a shard of another encoder or type among them."""
    rows = [Passage("1", "london"), Passage("2", "paris")]
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
        (
            lambda f: write_folder(f, [Passage("1", "x"), Passage("2", "y")], HashingEncoder()),
            "is not in",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_reported(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """Before anything is read: which file, what was found, what was expected."""
    spoil(folder)
    with pytest.raises(SourceError, match=message):
        VectorShards(folder)


def test_a_shard_of_another_source_is_reported(folder: Path, encoder: HashingEncoder) -> None:
    """It has another number of passages."""
    rows = [Passage("1", "london")]
    vectors = vectors_of(rows, encoder).astype(np.float16)
    write_shard(shard_path(folder, 1), header_of(rows, encoder, 1), table_of(rows), vectors)
    with pytest.raises(
        SourceError, match=r"must hold 5 passages as its manifest\.json states, got 4"
    ):
        VectorShards(folder)


def test_not_a_folder_is_reported(tmp_path: Path, encoder: HashingEncoder) -> None:
    """A file, nothing at all, or the vectors of no row."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(SourceError, match=r"must be a DIR .* got no folder"):
            VectorShards(place)
    with pytest.raises(SourceError, match="its source was empty"):
        VectorShards(write_folder(tmp_path / "empty", [], encoder))


def test_a_manifest_comes_back(folder: Path) -> None:
    """And none is none."""
    manifest = read_manifest(folder)
    assert manifest is not None
    assert (3, 5, "float16") == (manifest.shards, manifest.passages, manifest.dtype)
    (folder / MANIFEST).unlink()
    assert read_manifest(folder) is None
