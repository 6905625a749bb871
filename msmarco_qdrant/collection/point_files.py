"""Files of points: ids, both vectors and payloads of some thousand points each, as NumPy's `.npz`.

Arrays of a file with `n` points:

* `ids`: uint8 `(n, 16)`, big-endian integers or UUIDs; `is_uuid`: bool `(n,)`;
* `dense`: float32 `(n, dimension)`;
* `sparse_ends`: int64 `(n,)`, ends in `sparse_indices` (uint32) and `sparse_values` (float32);
* `payloads`: uint8, a JSON array that is compressed by zlib.
"""

from __future__ import annotations

import json
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.collection_types import PointBatch, PointId, SparseVector
from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.runtime.atomic_file import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_POINTS = 4096
_TEXT_BYTES = 32 * 2**20
_PATTERN = "points-{:06d}.npz"


def write_points(
    batches: Iterable[PointBatch], folder: Path, on_written: Callable[[int], None]
) -> int:
    """Write batches of points of one collection into a folder, durably.

    Args:
        batches: The points.
        folder: An empty directory.
        on_written: Called after each file with the points written so far.

    Returns:
        The number of points.

    Raises:
        OutputError: If a file cannot be written.
    """
    done = 0
    for number, part in enumerate(_merge(batches), start=1):
        with atomic_write(folder / _PATTERN.format(number)) as file:
            _write(file, part)
        done += sum(len(batch.ids) for batch in part)
        on_written(done)
    return done


def read_points(paths: Sequence[Path], using: str) -> Iterator[PointBatch]:
    """Yield the points of files, a batch for each.

    Args:
        paths: The files.
        using: The name of their dense vector.

    Raises:
        SourceError: If a file cannot be read.
    """
    import numpy as np

    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                yield _read(arrays, using)
        except OSError as exc:
            raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
            raise SourceError(f"{path} is not a file of points: {exc}") from exc


def _merge(batches: Iterable[PointBatch]) -> Iterator[list[PointBatch]]:
    """Collect batches until they have enough points or text for a file."""
    part: list[PointBatch] = []
    points = text_bytes = 0
    for batch in batches:
        if not batch.ids:
            continue
        part.append(batch)
        points += len(batch.ids)
        text_bytes += sum(len(str(payload.get("text"))) for payload in batch.payloads)
        if points >= _POINTS or text_bytes >= _TEXT_BYTES:
            yield part
            part, points, text_bytes = [], 0, 0
    if part:
        yield part


def _write(file: Any, part: Sequence[PointBatch]) -> None:
    import numpy as np

    ids = [id_ for batch in part for id_ in batch.ids]
    sparse = [vector for batch in part for vector in batch.sparse]
    payloads = json.dumps([payload for batch in part for payload in batch.payloads]).encode()
    np.savez(
        file,
        ids=np.frombuffer(b"".join(map(_id_bytes, ids)), np.uint8).reshape(-1, 16),
        is_uuid=np.array([isinstance(id_, uuid.UUID) for id_ in ids]),
        dense=np.concatenate([batch.dense for batch in part]),
        sparse_ends=np.cumsum([len(vector.indices) for vector in sparse], dtype=np.int64),
        sparse_indices=np.array([i for one in sparse for i in one.indices], np.uint32),
        sparse_values=np.array([v for one in sparse for v in one.values], np.float32),
        payloads=np.frombuffer(zlib.compress(payloads, level=1), np.uint8),
    )


def _read(arrays: Any, using: str) -> PointBatch:
    import numpy as np

    ends = arrays["sparse_ends"]
    indices = np.split(arrays["sparse_indices"], ends[:-1])
    values = np.split(arrays["sparse_values"], ends[:-1])
    return PointBatch(
        using=using,
        ids=list(map(_to_id, arrays["ids"], arrays["is_uuid"])),
        dense=arrays["dense"],
        sparse=[SparseVector(i.tolist(), v.tolist()) for i, v in zip(indices, values, strict=True)],
        payloads=json.loads(zlib.decompress(arrays["payloads"].tobytes())),
    )


def _id_bytes(id_: PointId) -> bytes:
    return id_.bytes if isinstance(id_, uuid.UUID) else id_.to_bytes(16, "big")


def _to_id(row: NDArray[np.uint8], is_uuid: np.bool_) -> PointId:
    data = row.tobytes()
    return uuid.UUID(bytes=data) if is_uuid else int.from_bytes(data, "big")
