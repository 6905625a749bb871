"""Decompression of streams: gzip, bzip2, xz and zstd, detected by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import Any

from msmarco_qdrant.errors import MissingExtraError
from msmarco_qdrant.sources.lines import DamagedStreamError, FullFirstRead

SAMPLE_BYTES = 1 << 16
"""Bytes of a stream that are looked at to detect its content."""

_READ = 1 << 16
# The marks of lzma and of zstd's skippable frames are followed by bytes that no text has.
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes([0x50 + n]) + b"\x2a\x4d\x18", "zstd") for n in range(16)),
)
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")


def compression_of(head: bytes) -> str | None:
    """Return the name of a compression from the first bytes of a stream, None without one."""
    name = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if name == "bzip2" and not head.startswith(_BZIP2_BLOCKS, 4):
        return None  # a text that starts with these letters
    return name


def decompress(raw: io.BufferedReader, name: str, source: str) -> io.BufferedReader:
    """Wrap a stream in a decompressor, whose `peek` returns `SAMPLE_BYTES` if there are as many.

    Its reads raise `DamagedStreamError` after all that can be decompressed.

    Raises:
        MissingExtraError: For zstd without pyarrow.
    """
    stream: Any
    if name == "gzip":
        stream = gzip.GzipFile(fileobj=raw)
    elif name == "bzip2":
        stream = bz2.BZ2File(raw)
    elif name in ("xz", "lzma"):
        stream = lzma.LZMAFile(raw)  # noqa: SIM115  # it owns nothing
    else:
        stream = _zstd(raw, source)
    return io.BufferedReader(FullFirstRead(_Decompressed(stream, name)), SAMPLE_BYTES)


def _zstd(raw: io.BufferedReader, source: str) -> Any:
    try:
        import pyarrow as pa
    except ImportError as exc:
        raise MissingExtraError(f"reading zstd ({source})", "parquet") from exc
    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")


class _Decompressed(io.RawIOBase):
    """The content of a decompressor; damage raises only after all bytes before it."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            # read1 returns available bytes; read would lose them at the end of a cut stream.
            part = self._stream.read1(min(len(buffer), _READ))
        except EOFError as exc:
            raise DamagedStreamError(self._cut) from exc
        except (zlib.error, gzip.BadGzipFile, lzma.LZMAError) as exc:
            raise DamagedStreamError(f"the {self._name} stream is damaged: {exc}") from exc
        except OSError as exc:
            if exc.errno is not None:  # of the file itself
                raise
            if "Truncated" in str(exc):
                raise DamagedStreamError(self._cut) from exc
            raise DamagedStreamError(f"the {self._name} stream is damaged: {exc}") from exc
        buffer[: len(part)] = part
        return len(part)

    @property
    def _cut(self) -> str:
        return f"the {self._name} stream ends early: the file was cut off"
