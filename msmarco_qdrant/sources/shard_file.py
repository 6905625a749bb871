"""Vectors beside their passages in a folder of Parquet files: the second adapter to pyarrow.

``00000.parquet``, ``00001.parquet``, ... hold the passages in the order of their source, and
``manifest.json``, which is written last, says that all of them are there. A file has the columns
`pid`, `text`, `meta` (JSON text), `text_digest`, `meta_digest` and `vector`.

`vector` is a fixed-size list of float16 or float32 without nulls, which pandas, Polars and DuckDB
read as lists. Measured on 65,536 rows of 768 on one thread of two shared cores (pyarrow 26), a
file of float16 is written with 103,000 to 137,000 rows/s, its fsync included, and read with
130,000 to 240,000. What decides it:

* row groups of 8,192 rows: float16 in groups of 16,384 was written by about a third slower;
* no compression, no dictionary and no statistics of vectors. The texts are compressed by zstd;
* a checksum a page, which is all that would tell of a flipped bit: of float16 it costs less than
  the noise, of float32 perhaps a fifth;
* a fixed-size binary column would be written four times as fast or more, but pandas, Polars and
  DuckDB would show bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msmarco_qdrant.core.records import EncoderInfo, Prompts
from msmarco_qdrant.errors import OutputError, SourceError, UsageError
from msmarco_qdrant.runtime.atomic_file import atomic_write, atomic_write_text
from msmarco_qdrant.sources.parquet import check_extra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VectorType: TypeAlias = Literal["float16", "float32"]

VERSION = 1
MANIFEST = "manifest.json"
TEXT_COLUMNS = ("pid", "text", "meta", "text_digest", "meta_digest")
VECTOR_COLUMN = "vector"

_KEY = b"msmarco-qdrant"
_GROUP_ROWS = 8192
_BATCH_ROWS = 2048
_AGAIN = "delete it and run the same `msmarco-qdrant encode` again, which makes it anew"


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """What a shard says of itself; JSON in the key-value metadata of its Parquet file.

    Attributes:
        encoder: What made its vectors.
        dtype: What they are kept in.
        number: Its place among the shards, counted from 0.
        rows: Rows of the source that it covers: its passages, and the rows that were rejected.
        rejected: Those of them that could not become a passage with a vector.
        source_sha256: 64 hexadecimal digits over the rows that it covers.
        chunks: Chunks of the source that these rows were read in, see `Corpus.chunks`.
        full: Chunks that a shard of its folder covers, unless the source ends before.
    """

    encoder: EncoderInfo
    dtype: VectorType
    number: int
    rows: int
    rejected: int
    source_sha256: str
    chunks: int
    full: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of shards holds, written when it is complete.

    Attributes:
        shards: Its files.
        passages: Passages in all of them.
        rejected: Rows of the source that could not become a passage with a vector.
        fingerprint: The encoder's.
        dtype: What the vectors are kept in.
        version: Of the layout.
    """

    shards: int
    passages: int
    rejected: int
    fingerprint: str
    dtype: VectorType
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Footer:
    """What the end of a shard says: its header, its passages and its vectors' length."""

    header: ShardHeader
    passages: int
    dimension: int


@dataclass(frozen=True, slots=True, eq=False)
class ShardRows:
    """Some rows of a shard, by columns.

    Attributes:
        columns: The strings of each of `TEXT_COLUMNS`; what is not UTF-8 has U+FFFD in its place.
        vectors: float32 `(n, dimension)`, as they were kept.
    """

    columns: dict[str, list[str]]
    vectors: NDArray[np.float32]


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies, counted from 0."""
    return folder / f"{number:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """The Parquet files of a folder in order, whether they are shards or not."""
    return sorted(folder.glob("[!.]*.parquet"))


# ---- writing -------------------------------------------------------------------------------


def write_shard(path: Path, header: ShardHeader, table: Any, vectors: NDArray[Any]) -> None:
    """Write a shard, which appears under its name when it is complete and on disk.

    Args:
        path: Where to, see `shard_path`.
        header: What it says of itself.
        table: A `pyarrow.Table` or `RecordBatch` with the string columns of `TEXT_COLUMNS`.
        vectors: `(n, dimension)` of the header's type, a row for each of the table's.

    Raises:
        OutputError: If it cannot be written; nothing then lies at `path` that did not before.
        UsageError: If header, table and vectors do not fit one another.
        MissingExtraError: Without the extra `parquet`.
    """
    check_extra("writing vectors")
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_fit(header, table, vectors)
    try:
        rows = _with_vectors(header, table, vectors)
        with (
            atomic_write(path) as file,
            pq.ParquetWriter(file, rows.schema, **_writer_options()) as writer,
        ):
            writer.write_table(rows, row_group_size=_GROUP_ROWS)
    except pa.ArrowException as exc:
        raise OutputError(f"{path} cannot be written as Parquet: {exc}") from exc


def _check_fit(header: ShardHeader, table: Any, vectors: NDArray[Any]) -> None:
    expected = (header.rows - header.rejected, header.encoder.dimension)
    if table.num_rows != expected[0] or vectors.shape != expected or vectors.dtype != header.dtype:
        raise UsageError(
            f"shard {header.number} got {table.num_rows} passages and vectors of {vectors.dtype} "
            f"{vectors.shape}, its header promises {header.dtype} {expected}"
        )


def _with_vectors(header: ShardHeader, table: Any, vectors: NDArray[Any]) -> Any:
    import numpy as np
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    # Without nulls: a list and its numbers need no levels that say so.
    element = pa.field("element", flat.type, nullable=False)
    column = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(element, vectors.shape[1]))
    fields = [pa.field(name, pa.string(), nullable=False) for name in TEXT_COLUMNS]
    fields.append(pa.field(VECTOR_COLUMN, column.type, nullable=False))
    content = json.dumps({"version": VERSION, **asdict(header)})
    schema = pa.schema(fields, metadata={_KEY: content})
    return pa.table([*(table[name] for name in TEXT_COLUMNS), column], schema=schema)


def _writer_options() -> dict[str, Any]:
    return {
        "compression": {
            **dict.fromkeys(TEXT_COLUMNS, "zstd"),
            f"{VECTOR_COLUMN}.list.element": "none",
        },
        "use_dictionary": False,
        "write_statistics": False,
        "write_page_checksum": True,
        "write_batch_size": 1 << 16,  # numbers at once: the default of 1,024 costs a tenth
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Say that a folder is complete.

    Raises:
        OutputError: If it cannot be written.
    """
    with atomic_write_text(folder / MANIFEST) as file:
        file.write(json.dumps(asdict(manifest), indent=2) + "\n")


# ---- reading -------------------------------------------------------------------------------


def read_header(path: Path) -> ShardHeader:
    """What a shard says of itself.

    Raises:
        SourceError: If it is no shard, is cut off, or is of another version.
        MissingExtraError: Without the extra `parquet`.
    """
    return read_footer(path).header


def read_footer(path: Path) -> Footer:
    """The same with the number of its passages and the length of its vectors.

    Raises:
        SourceError: As `read_header`, or if its columns are not those of a shard.
        MissingExtraError: Without the extra `parquet`.
    """
    with _opened(path) as file:
        content = (file.metadata.metadata or {}).get(_KEY)
        if content is None:
            raise SourceError(
                f"{path} is Parquet, but no shard of vectors: expected is what `msmarco-qdrant "
                "encode` writes; to encode its passages, name it as a SOURCE of `ingest`"
            )
        header = _header_of(path, content)
        dimension = _check_columns(path, header, file.schema_arrow)
        return Footer(header, file.metadata.num_rows, dimension)


def read_column(path: Path, name: str) -> list[str]:
    """One of `TEXT_COLUMNS`, as `pid`, of all of a shard's rows.

    Raises:
        SourceError: If it cannot be read.
        MissingExtraError: Without the extra `parquet`.
    """
    with _opened(path) as file:
        if name not in file.schema_arrow.names:
            raise SourceError(f"{path} has no column '{name}'; it is no shard of vectors")
        return _strings(file.read(columns=[name]).column(name))


def read_rows(path: Path) -> Iterator[ShardRows]:
    """The rows of a shard, some at a time: one row group of it is in memory.

    Raises:
        SourceError: If it cannot be read, or its checksums tell that it has changed.
        MissingExtraError: Without the extra `parquet`.
    """
    import numpy as np

    with _opened(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            flat = batch.column(VECTOR_COLUMN).flatten().to_numpy(zero_copy_only=False)
            vectors = flat.reshape(batch.num_rows, -1).astype(np.float32)
            yield ShardRows({name: _strings(batch.column(name)) for name in TEXT_COLUMNS}, vectors)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open Parquet file, and what goes wrong while it is read."""
    check_extra(f"reading vectors ({path})")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError as exc:
        raise SourceError(f"no such file: {path}") from exc
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(
            f"{path} cannot be read as Parquet: {exc}. If it was cut off or damaged, {_AGAIN}"
        ) from exc


def _header_of(path: Path, content: bytes) -> ShardHeader:
    try:
        fields = json.loads(content)
        found = fields.pop("version")
        if found != VERSION:
            raise SourceError(
                f"{path} is a shard of version {found}, this version of msmarco-qdrant reads "
                f"{VERSION}: use the version that wrote it"
            )
        encoder = fields.pop("encoder")
        encoder_info = EncoderInfo(**{**encoder, "prompts": Prompts(**encoder["prompts"])})
        return ShardHeader(encoder=encoder_info, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise SourceError(f"{path} has a header that cannot be read ({exc!r}): {_AGAIN}") from exc


def _check_columns(path: Path, header: ShardHeader, schema: Any) -> int:
    """Refuse columns that no shard has; else the length of its vectors."""
    import pyarrow as pa

    if tuple(schema.names) != (*TEXT_COLUMNS, VECTOR_COLUMN):
        raise SourceError(
            f"{path} has the columns {', '.join(schema.names)}, a shard has "
            f"{', '.join(TEXT_COLUMNS)}, {VECTOR_COLUMN}: {_AGAIN}"
        )
    found = schema.field(VECTOR_COLUMN).type
    # Arrow's name of float16 is halffloat; its equality of lists goes by the element's name too.
    element = pa.from_numpy_dtype(header.dtype)
    dimension = header.encoder.dimension
    if (
        not pa.types.is_fixed_size_list(found)
        or found.value_type != element
        or found.list_size != dimension
    ):
        raise SourceError(
            f"{path} has vectors of {found}, its header promises {dimension} numbers of "
            f"{header.dtype}: {_AGAIN}"
        )
    return dimension


def _strings(column: Any) -> list[str]:
    """A column's strings; those that are not UTF-8 come mended, for their digests to tell."""
    import pyarrow as pa

    try:
        strings: list[str] = column.to_pylist()
    except UnicodeDecodeError:
        found = column.cast(pa.binary()).to_pylist()
        strings = [value.decode("utf-8", "replace") for value in found]
    return strings


def remove_manifest(folder: Path) -> None:
    """Take back that a folder is complete. No error where nothing said so."""
    path = folder / MANIFEST
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(f"cannot remove {path}: {exc.strerror}") from exc


def read_manifest(folder: Path) -> Manifest | None:
    """What a folder holds, None as long as it is not complete.

    Raises:
        SourceError: If the manifest cannot be read, or is of another version.
    """
    path = folder / MANIFEST
    try:
        fields = json.loads(path.read_bytes())
        if fields["version"] != VERSION:
            raise SourceError(
                f"{path} is of version {fields['version']}, this version of msmarco-qdrant reads "
                f"{VERSION}: use the version that wrote it"
            )
        return Manifest(**fields)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise SourceError(
            f"{path} is no manifest of a folder of vectors ({exc!r}): {_AGAIN}"
        ) from exc


# ---- texts on their way to a shard -----------------------------------------------------------


def text_batch(columns: dict[str, list[str]]) -> Any:
    """The `TEXT_COLUMNS` of some passages as a `pyarrow.RecordBatch`, which pickles cheaply."""
    import pyarrow as pa

    return pa.record_batch({name: pa.array(columns[name], pa.string()) for name in TEXT_COLUMNS})


def join_batches(batches: list[Any]) -> Any:
    """Several of them, in order, as one `pyarrow.Table`."""
    import pyarrow as pa

    schema = pa.schema([pa.field(name, pa.string()) for name in TEXT_COLUMNS])
    return pa.Table.from_batches(batches, schema=schema)
