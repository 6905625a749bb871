"""Content of a stream by its first bytes: text, Parquet or Arrow; the rest is refused.

The name of a file decides nothing. Archives are refused with the command that takes one of their
files, other binary files with their kind.
"""

from __future__ import annotations

import io
import shlex
import struct
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.compression import SAMPLE_BYTES, compression_of, decompress
from msmarco_qdrant.sources.lines import BOM, DamagedStreamError

STDIN = "-"

ContentKind: TypeAlias = Literal["text", "parquet", "arrow file", "arrow stream"]


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """The content of a source, not yet read.

    Attributes:
        kind: Its kind.
        stream: The decompressed bytes.
        head: The first of them, at most `SAMPLE_BYTES`, without a byte order mark.
        is_whole: True if `head` is all of them.
        compression: "gzip", "bzip2", "xz", "lzma", "zstd", or None.
    """

    kind: ContentKind
    stream: io.BufferedReader
    head: bytes
    is_whole: bool
    compression: str | None


def read_content(source: str, raw: io.BufferedReader, *, as_text: bool = False) -> Content:
    """Detect the content of a source, without consuming it.

    Args:
        source: Its name, for messages.
        raw: Its bytes, from `open_source`.
        as_text: Accept bytes as text that only look like another kind.

    Raises:
        SourceError: For an archive or another file that is neither text, Parquet nor Arrow.
        MissingExtraError: For zstd without pyarrow.
    """
    compression = compression_of(raw.peek(16))
    stream = raw if compression is None else decompress(raw, compression, source)
    try:
        head = stream.peek(SAMPLE_BYTES)[:SAMPLE_BYTES]
    except DamagedStreamError:
        head = b""  # a later read reports it
    if compression is not None and (inner := compression_of(head)) is not None:
        raise SourceError(
            f"{source} is compressed twice, {inner} inside {compression}: decompress it once"
        )
    is_whole = len(head) < SAMPLE_BYTES
    kind = _kind(source, head, compression, as_text=as_text)
    return Content(kind, stream, head.removeprefix(BOM), is_whole, compression)


def _kind(source: str, head: bytes, compression: str | None, *, as_text: bool) -> ContentKind:
    if head.startswith(b"PAR1") and not head.startswith(b"\t", 4):
        return "parquet"
    if head.startswith(b"ARROW1\x00\x00"):
        return "arrow file"
    if _is_arrow_stream(head):
        return "arrow stream"
    _refuse_archive(source, head, compression)
    _refuse_binary(source, head)
    if not as_text:
        _refuse_other_text(source, head)
    return "text"


def _is_arrow_stream(head: bytes) -> bool:
    """Return True for the first message of a stream: a mark, its length, a flatbuffer's offset."""
    if not head.startswith(b"\xff\xff\xff\xff") or len(head) < 12:
        return False
    length, offset = cast("tuple[int, int]", struct.unpack_from("<iI", head, 4))
    return 8 <= length < 1 << 28 and length % 8 == 0 and offset < length


# ---- archives --------------------------------------------------------------------------------

_ZIP = "a zip archive"
_ARCHIVES = (
    (b"PK\x03\x04", _ZIP, "unzip"),
    (b"PK\x05\x06", _ZIP, "unzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z e"),
    (b"Rar!\x1a\x07", "a rar archive", "unrar e"),
    (b"MSCF\x00\x00\x00\x00", "a cab archive", "cabextract"),
)


def _refuse_archive(source: str, head: bytes, compression: str | None) -> None:
    if (members := _tar_members(head)) is not None:
        flag = f"--{compression} " if compression else ""
        _refuse_members(source, "a tar archive", members, ("tar -xf", f"tar -x {flag}-Of -"))
    for magic, kind, command in _ARCHIVES:
        if not head.startswith(magic):
            continue
        if compression is not None:
            raise SourceError(
                f"{named_source(source)} is {kind} compressed by {compression}: decompress "
                "it, then extract its files and pass one of them"
            )
        members = list(_zip_members(head)) if kind == _ZIP else []
        _refuse_documents(source, members)
        _refuse_members(source, kind, members, (command, None))


def _refuse_members(
    source: str, kind: str, members: Sequence[str], commands: tuple[str, str | None]
) -> None:
    """Refuse an archive with the command that takes a file out of it.

    `commands` are those for a file and for standard input, None if that cannot be read.
    """
    command, piped = commands
    name = next((name for name in members if _is_plain_name(name)), "")
    if source == STDIN and name and piped is not None:
        advice = f"put `{piped} {shlex.quote(name)}` before this command in the pipe"
    else:
        file = "FILE" if source == STDIN else shlex.quote(source)
        words = f"{command} {file} {shlex.quote(name)}" if name else f"{command} {file}"
        advice = f"extract it with `{words}`, then pass {name or 'an extracted file'}"
    holds = f" that holds {name}" if name else ""
    raise SourceError(f"{named_source(source)} is {kind}{holds}: {advice}")


def _refuse_documents(source: str, members: Sequence[str]) -> None:
    """Refuse other files that are zip archives inside."""
    for ending, kind in (
        ("[Content_Types].xml", "an Excel or Word file: save the table as CSV, then pass that"),
        (".npy", "an archive of NumPy arrays: write passages as JSON lines"),
        ("data.pkl", "a file of torch: write passages as JSON lines"),
    ):
        if any(name.endswith(ending) for name in members):
            raise SourceError(f"{named_source(source)} is {kind}")


def _tar_members(head: bytes) -> list[str] | None:
    """Return the names of the first files of a tar archive, None for other content."""
    if len(head) < 512 or not head[:512].strip(b"\x00"):
        return None
    names: list[str] = []
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "replace")
        with tarfile.open(fileobj=io.BytesIO(head), mode="r:", errors="replace") as tar:
            names += (member.name for member in tar if member.isfile())
    except tarfile.HeaderError:
        return None
    except (tarfile.TarError, OSError):  # the sample ends within a member
        pass
    return names


def _zip_members(head: bytes) -> Iterator[str]:
    """Yield the names in the first headers of a zip archive."""
    at = 0
    while head.startswith(b"PK\x03\x04", at) and len(head) >= at + 30:
        size, _, name, extra = struct.unpack_from("<IIHH", head, at + 18)
        yield head[at + 30 : at + 30 + name].decode("utf-8", "replace")
        at += 30 + name + extra + size


def _is_plain_name(name: str) -> bool:
    """Return True for a name that a shell command can take as it is."""
    base = name.rpartition("/")[2]
    return (
        bool(base)
        and name.isprintable()
        and not (base.startswith("._") or name.startswith("-") or set(name) & set("*?[\\"))
    )


# ---- other binary files ------------------------------------------------------------------------

# Each has a byte that no text has.
_BINARY = (
    (b"\x04\x22\x4d\x18", "compressed by lz4: decompress it with `lz4 -d`"),
    (b"\x1f\x9d", "compressed by compress: decompress it with `gzip -d`"),
    (b"\xff\x06\x00\x00sNaPpY", "compressed by snappy: decompress it first"),
    (b"SQLite format 3\x00", "a SQLite database: export its table as CSV, then pass that"),
    (b"\xff\xfe\x00\x00", "UTF-32 text: convert it with `iconv -f UTF-32 -t UTF-8`"),
    (b"\x00\x00\xfe\xff", "UTF-32 text: convert it with `iconv -f UTF-32 -t UTF-8`"),
    (b"\xff\xfe", "UTF-16 text: convert it with `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfe\xff", "UTF-16 text: convert it with `iconv -f UTF-16 -t UTF-8`"),
    (b"\x93NUMPY", "a NumPy array: write passages as JSON lines"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file: write passages as JSON lines"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel or Word file: save it as CSV, then pass that"),
    (b"Obj\x01", "an Avro file: write passages as JSON lines or Parquet"),
    (b"\x89PNG\r\n\x1a\n", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"\x7fELF", "a program"),
    *((bytes([0x80, n]), "a Python pickle: write passages as JSON lines") for n in range(2, 6)),
)
_TEXT_MARKS = (
    (b"gif89a", "an image"),
    (b"%pdf-", "a PDF: extract its text, then write passages as JSON lines"),
    (b"fea1", "Feather version 1: write it again as Parquet or Feather version 2"),
    (b"lzip\x01", "compressed by lzip: decompress it with `lzip -d`"),
    (b"orc\x11", "an ORC file: write passages as Parquet"),
    (b"pare", "encrypted Parquet: write it without encryption"),
    (b"<!doctype", "an HTML page, maybe an error of the download: download the file again"),
    (b"<html", "an HTML page, maybe an error of the download: download the file again"),
    (b"<?xml", "XML: write passages as JSON lines"),
    (b"<doc>", "TREC's markup (<DOC>): write passages as JSON lines"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of git-lfs: run `git lfs pull`"),
)
_CONTROLS = bytes({*range(9), *range(14, 27), *range(28, 32)})
_FEW_BYTES = 24
_MOST_CONTROLS = 0.1


def _refuse_binary(source: str, head: bytes) -> None:
    for magic, kind in _BINARY:
        if head.startswith(magic):
            raise SourceError(f"{named_source(source)} is {kind}")


def _refuse_other_text(source: str, head: bytes) -> None:
    """Refuse content that could be text, but plainly is another kind."""
    start = head.removeprefix(BOM).lstrip()[:64].lower()
    for magic, kind in _TEXT_MARKS:
        if start.startswith(magic) and not start.startswith(b"\t", len(magic)):
            raise SourceError(f"{named_source(source)} is {kind}")
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if len(head) < _FEW_BYTES or controls <= _MOST_CONTROLS * len(head):
        return
    if head.count(b"\x00") > len(head) / 4:
        raise SourceError(
            f"{named_source(source)} holds NUL bytes, as UTF-16 text does: convert it with "
            "`iconv -f UTF-16LE -t UTF-8`"
        )
    raise SourceError(
        f"{named_source(source)} is a binary file of an unknown kind: pass TSV, CSV, JSON "
        "lines, Parquet or Arrow"
    )


def named_source(source: str) -> str:
    """Return the name of a source in a message."""
    return "standard input" if source == STDIN else source
