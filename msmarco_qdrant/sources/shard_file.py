"""Parquet files with passages and their vectors, by pyarrow.

A folder holds ``00000.parquet``, ``00001.parquet``, ... in the order of the source, and
``manifest.json``, which is written last and marks the folder as complete. A file has the columns
`pid`, `text`, `meta` (JSON text), `text_digest`, `meta_digest` and `vector`.

`vector` is a fixed-size list of float16 or float32 without nulls, which pandas, Polars and DuckDB
read as lists. Measured on 65,536 rows of 768 on one thread of two shared cores (pyarrow 26),
float16 is written at 103,000 to 137,000 rows/s, fsync included, and read at 130,000 to 240,000.
The reasons for the format:

* row groups of 8,192 rows: writing float16 in groups of 16,384 was about a third slower;
* vectors have no compression, dictionary or statistics; zstd compresses the texts;
* only a checksum per page detects a flipped bit. Its cost for float16 is below the noise, for
  float32 about a fifth;
* a fixed-size binary column is written at least four times as fast, but pandas, Polars and DuckDB
  would show bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from msmarco_qdrant.core.encoder_types import EncoderInfo, Int8Loss, Prompts
from msmarco_qdrant.errors import OutputError, SourceError, UsageError
from msmarco_qdrant.sources.file_path import FilePath, write_whole
from msmarco_qdrant.sources.parquet import check_extra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VectorType: TypeAlias = Literal["float16", "float32"]

_Folder = TypeVar("_Folder", bound=FilePath)

VERSION = 1
MANIFEST = "manifest.json"
TEXT_COLUMNS = ("pid", "text", "meta", "text_digest", "meta_digest")
VECTOR_COLUMN = "vector"

_KEY = b"msmarco-qdrant"
_GROUP_ROWS = 8192
_BATCH_ROWS = 2048
_RECREATE = "delete it and run the same encode again to recreate it"


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """Header of a shard; JSON in the key-value metadata of its Parquet file.

    Attributes:
        encoder: Encoder of its vectors.
        dtype: Type of its vectors.
        number: Number of the shard, counted from 0.
        rows: Rows of the source that it covers: passages and rejected rows.
        rejected: Rows among them that could not become a passage with a vector.
        source_sha256: 64 hexadecimal digits over the rows that it covers.
        chunks: Chunks of the source that it covers, see `Corpus.chunks`.
        full: Chunks that every shard of the folder covers, except the last.
        int8_loss: The measured loss, if the encoder used int8.
    """

    encoder: EncoderInfo
    dtype: VectorType
    number: int
    rows: int
    rejected: int
    source_sha256: str
    chunks: int
    full: int
    int8_loss: Int8Loss | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Summary of a folder of shards, written when it is complete.

    Attributes:
        shards: Number of shards.
        passages: Passages in all shards.
        rejected: Rows of the source that could not become a passage with a vector.
        fingerprint: Fingerprint of the encoder.
        dtype: Type of the vectors.
        version: Version of the layout.
    """

    shards: int
    passages: int
    rejected: int
    fingerprint: str
    dtype: VectorType
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Footer:
    """Footer of a shard: its header, number of passages, and length of a vector."""

    header: ShardHeader
    passages: int
    dimension: int


@dataclass(frozen=True, slots=True, eq=False)
class ShardRows:
    """Some rows of a shard, by columns.

    Attributes:
        columns: The strings of each of `TEXT_COLUMNS`; U+FFFD replaces bytes that are not UTF-8.
        vectors: float32 `(n, dimension)`, as stored.
    """

    columns: dict[str, list[str]]
    vectors: NDArray[np.float32]


def shard_path(folder: _Folder, number: int) -> _Folder:
    """Return the path of a shard, counted from 0."""
    return cast("_Folder", folder / f"{number:05d}.parquet")


def shard_paths(folder: _Folder) -> list[_Folder]:
    """List the Parquet files of a folder in order, shards or not."""
    return cast("list[_Folder]", sorted(folder.glob("[!.]*.parquet")))


# ---- writing -------------------------------------------------------------------------------


def write_shard(path: FilePath, header: ShardHeader, table: Any, vectors: NDArray[Any]) -> None:
    """Write a shard, which appears under its name when it is complete and on disk.

    Args:
        path: Path of the shard, see `shard_path`.
        header: Header of the shard.
        table: A `pyarrow.Table` or `RecordBatch` with the string columns of `TEXT_COLUMNS`.
        vectors: `(n, dimension)` of the header's type, a row for each row of the table.

    Raises:
        OutputError: If it cannot be written; `path` is then unchanged.
        UsageError: If header, table and vectors do not fit each other.
        MissingExtraError: Without the extra `parquet`.
    """
    check_extra("writing vectors")
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_fit(header, table, vectors)
    try:
        rows = _with_vectors(header, table, vectors)
        with (
            write_whole(path) as file,
            pq.ParquetWriter(file, rows.schema, **_writer_options()) as writer,
        ):
            writer.write_table(rows, row_group_size=_GROUP_ROWS)
    except pa.ArrowException as exc:
        raise OutputError(f"{path} cannot be written as Parquet: {exc}") from exc


def _check_fit(header: ShardHeader, table: Any, vectors: NDArray[Any]) -> None:
    expected = (header.rows - header.rejected, header.encoder.dimension)
    if table.num_rows != expected[0] or vectors.shape != expected or vectors.dtype != header.dtype:
        raise UsageError(
            f"shard {header.number} must have vectors of {header.dtype} {expected}, got "
            f"{table.num_rows} passages and vectors of {vectors.dtype} {vectors.shape}"
        )


def _with_vectors(header: ShardHeader, table: Any, vectors: NDArray[Any]) -> Any:
    import numpy as np
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    # Without nulls, lists and their numbers need no definition levels.
    element = pa.field("element", flat.type, nullable=False)
    column = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(element, vectors.shape[1]))
    fields = [pa.field(name, pa.string(), nullable=False) for name in TEXT_COLUMNS]
    fields.append(pa.field(VECTOR_COLUMN, column.type, nullable=False))
    schema = pa.schema(fields, metadata={_KEY: _header_to_json(header)})
    return pa.table([*(table[name] for name in TEXT_COLUMNS), column], schema=schema)


def _header_to_json(header: ShardHeader) -> str:
    fields = asdict(header)
    if header.int8_loss is None:  # version 0.1 refuses fields of later ones
        del fields["int8_loss"]
    return json.dumps({"version": VERSION, **fields})


def _writer_options() -> dict[str, Any]:
    return {
        "compression": {
            **dict.fromkeys(TEXT_COLUMNS, "zstd"),
            f"{VECTOR_COLUMN}.list.element": "none",
        },
        "use_dictionary": False,
        "write_statistics": False,
        "write_page_checksum": True,
        "write_batch_size": 1 << 16,  # numbers; the default of 1,024 is a tenth slower
    }


def write_manifest(folder: FilePath, manifest: Manifest) -> None:
    """Mark a folder as complete.

    Raises:
        OutputError: If the manifest cannot be written.
    """
    with write_whole(folder / MANIFEST) as file:
        file.write(f"{json.dumps(asdict(manifest), indent=2)}\n".encode())


# ---- reading -------------------------------------------------------------------------------


def read_footer(path: FilePath) -> Footer:
    """Read the footer of a shard.

    Raises:
        SourceError: If it is not a shard, is truncated, is of another version, or has other
            columns.
        MissingExtraError: Without the extra `parquet`.
    """
    with _open(path) as file:
        content = (file.metadata.metadata or {}).get(_KEY)
        if content is None:
            raise SourceError(
                f"{path} must be a shard that `msmarco-qdrant encode` wrote, got another Parquet "
                "file; to encode its passages, pass it as a SOURCE of `ingest`"
            )
        header = _header_of(path, content)
        dimension = _check_columns(path, header, file.schema_arrow)
        return Footer(header, file.metadata.num_rows, dimension)


def read_column(path: FilePath, name: str) -> list[str]:
    """Read a column of `TEXT_COLUMNS`, such as `pid`, of all rows of a shard.

    Raises:
        SourceError: If it cannot be read.
        MissingExtraError: Without the extra `parquet`.
    """
    with _open(path) as file:
        if name not in file.schema_arrow.names:
            raise SourceError(f"{path} has no column '{name}': it is not a shard of vectors")
        return _strings(file.read(columns=[name]).column(name))


def read_rows(path: FilePath) -> Iterator[ShardRows]:
    """Yield the rows of a shard in batches, with one row group in memory.

    Raises:
        SourceError: If it cannot be read, or a checksum is wrong.
        MissingExtraError: Without the extra `parquet`.
    """
    import numpy as np

    with _open(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            flat = batch.column(VECTOR_COLUMN).flatten().to_numpy(zero_copy_only=False)
            vectors = flat.reshape(batch.num_rows, -1).astype(np.float32)
            yield ShardRows({name: _strings(batch.column(name)) for name in TEXT_COLUMNS}, vectors)


@contextmanager
def _open(path: FilePath) -> Iterator[Any]:
    """Open a Parquet file, and map errors of reading it."""
    check_extra(f"reading vectors ({path})")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with (
            # pyarrow reads a local file itself, with less work than a stream of Python.
            nullcontext(path) if isinstance(path, Path) else path.open("rb") as source,
            pq.ParquetFile(source, page_checksum_verification=True) as file,
        ):
            yield file
    except FileNotFoundError as exc:
        raise SourceError(f"no such file: {path}") from exc
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(
            f"{path} cannot be read as Parquet: {exc}. If it is truncated or damaged, {_RECREATE}"
        ) from exc


def _header_of(path: FilePath, content: bytes) -> ShardHeader:
    try:
        fields = json.loads(content)
        _check_version(path, fields.pop("version"))
        encoder = fields.pop("encoder")
        encoder = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in encoder.items()
        }
        encoder_info = EncoderInfo(**{**encoder, "prompts": Prompts(**encoder["prompts"])})
        if (loss := fields.pop("int8_loss", None)) is not None:
            loss = Int8Loss(**loss)
        return ShardHeader(encoder=encoder_info, int8_loss=loss, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise SourceError(f"the header of {path} cannot be read ({exc!r}): {_RECREATE}") from exc


def _check_version(path: FilePath, found: object) -> None:
    if found != VERSION:
        raise SourceError(
            f"{path} must be of version {VERSION}, got {found}: use the version of msmarco-qdrant "
            "that wrote it"
        )


def _check_columns(path: FilePath, header: ShardHeader, schema: Any) -> int:
    """Check the columns of a shard, and return the length of its vectors."""
    import pyarrow as pa

    if tuple(schema.names) != (*TEXT_COLUMNS, VECTOR_COLUMN):
        raise SourceError(
            f"{path} must have the columns {', '.join(TEXT_COLUMNS)}, {VECTOR_COLUMN}, got "
            f"{', '.join(schema.names)}: {_RECREATE}"
        )
    found = schema.field(VECTOR_COLUMN).type
    # Arrow's name of float16 is halffloat; equality of lists includes the element's name.
    element = pa.from_numpy_dtype(header.dtype)
    dimension = header.encoder.dimension
    if (
        not pa.types.is_fixed_size_list(found)
        or found.value_type != element
        or found.list_size != dimension
    ):
        raise SourceError(
            f"the vectors of {path} must be {dimension} numbers of {header.dtype}, as its header "
            f"states, got {found}: {_RECREATE}"
        )
    return dimension


def _strings(column: Any) -> list[str]:
    """Return a column's strings; U+FFFD replaces invalid UTF-8, so that its digest differs."""
    import pyarrow as pa

    try:
        strings: list[str] = column.to_pylist()
    except UnicodeDecodeError:
        found = column.cast(pa.binary()).to_pylist()
        strings = [value.decode("utf-8", "replace") for value in found]
    return strings


def remove_manifest(folder: FilePath) -> None:
    """Mark a folder as incomplete. A missing manifest is not an error."""
    path = folder / MANIFEST
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(f"cannot remove {path}: {exc.strerror}") from exc


def read_manifest(folder: FilePath) -> Manifest | None:
    """Read the manifest of a folder, None if the folder is not complete.

    Raises:
        SourceError: If the manifest cannot be read, or is of another version.
    """
    path = folder / MANIFEST
    try:
        fields = json.loads(path.read_bytes())
        _check_version(path, fields["version"])
        return Manifest(**fields)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise SourceError(f"the manifest {path} cannot be read ({exc!r}): {_RECREATE}") from exc


def text_batch(columns: dict[str, list[str]]) -> Any:
    """Convert `TEXT_COLUMNS` of passages to a `pyarrow.RecordBatch`, which pickles cheaply."""
    import pyarrow as pa

    return pa.record_batch({name: pa.array(columns[name], pa.string()) for name in TEXT_COLUMNS})


def join_batches(batches: list[Any]) -> Any:
    """Join batches, in order, to one `pyarrow.Table`."""
    import pyarrow as pa

    schema = pa.schema([pa.field(name, pa.string()) for name in TEXT_COLUMNS])
    return pa.Table.from_batches(batches, schema=schema)
