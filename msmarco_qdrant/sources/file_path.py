"""Paths of files and folders, in this machine's file systems or behind a URL, by fsspec.

A URL is of an object store, such as ``s3://bucket/folder``, or of anything else that has a file
system for fsspec. Its library reads credentials from its own environment; a URL with a password or
a query is refused, since paths are shown in messages, logs and rejects.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.errors import (
    MissingExtraError,
    MsmarcoQdrantError,
    OutputError,
    SourceError,
    UsageError,
)
from msmarco_qdrant.runtime.atomic_file import atomic_write

# Read beyond what is needed, for the next reads. A cut of a file of lines reads near each MiB.
_AHEAD_BYTES = 1 << 18
_REASON_CHARS = 300
_SCHEMES_HERE = ("file", "local")  # of fsspec
_OF_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
# What may be secret in the message of a library: the user of a URL, and its query.
_SECRET = re.compile(r"(?<=//)[^/@\s]*@|\?\S*")


@dataclass(frozen=True, slots=True, order=True)
class RemotePath:
    """A file or folder behind a URL, with those methods of `pathlib.Path` that are needed.

    A file that is missing raises `FileNotFoundError`, as with `Path`; anything else that fails
    raises an error of this package.

    Attributes:
        url: The URL, without a slash at its end. It has no secrets, see `to_path`.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """The folder."""
        return RemotePath(self.url.rpartition("/")[0])

    def absolute(self) -> RemotePath:
        """Return the same path."""
        return self

    def stat(self) -> os.stat_result:
        """Return a status with the kind, as `st_mode`, and the size in bytes, as `st_size`."""
        with self._filesystem(SourceError, "read") as (files, path):
            info = files.info(path)
        if info["type"] == "directory":
            return os.stat_result((stat.S_IFDIR, 0, 0, 0, 0, 0, 0, 0, 0, 0))
        size = info["size"]
        if size is None:  # as of a server that compresses what it sends
            raise SourceError(
                f"cannot read {self.url}: its server does not report the size, without which a "
                "file cannot be read in parts; copy it to this machine first"
            )
        return os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, size, 0, 0, 0))

    def exists(self) -> bool:
        """Return True if there is a file or a folder."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return True if there is a folder; that of an object store has at least one file."""
        try:
            return stat.S_ISDIR(self.stat().st_mode)
        except FileNotFoundError:
            return False

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield the paths in this folder whose names match, none if it is missing."""
        try:
            with self._filesystem(SourceError, "list") as (files, path):
                found = files.ls(path, detail=False)
        except FileNotFoundError:
            return
        for one in found:
            name = one.rstrip("/").rpartition("/")[2]
            # A file is listed as its own content, and so may be an empty object for a folder.
            if fnmatchcase(name, pattern) and one.rstrip("/") != path.rstrip("/"):
                yield self / name

    def open(self, mode: str = "rb", buffering: int = io.DEFAULT_BUFFER_SIZE) -> io.BufferedReader:  # noqa: ARG002  # for reading only
        """Open the file for reading; it is read in parts, as it is needed."""
        with self._filesystem(SourceError, "read") as (files, path):
            file = files.open(path, "rb", block_size=_AHEAD_BYTES)
        return io.BufferedReader(_RemoteFile(self.url, file), buffering)

    def read_bytes(self) -> bytes:
        """Return the content of a file."""
        with self.open() as file:
            return file.read()

    def write_bytes(self, content: bytes) -> None:
        """Write a file. In an object store it appears, or is replaced, as a whole."""
        with self._filesystem(OutputError, "write") as (files, path):
            files.pipe_file(path, content)

    def require_writable(self) -> None:
        """Write an empty file into this folder, and remove it."""
        with self._filesystem(OutputError, "write") as (files, path):
            probe = f"{path}/.{secrets.token_hex(8)}.parquet.probe.tmp"
            files.pipe_file(probe, b"")
            files.rm_file(probe)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove a file."""
        try:
            with self._filesystem(OutputError, "remove") as (files, path):
                files.rm_file(path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    @contextmanager
    def _filesystem(self, error: type[MsmarcoQdrantError], verb: str) -> Iterator[tuple[Any, str]]:
        """Yield the filesystem of fsspec, and the path in it."""
        import fsspec

        _require_library(self.url)  # the path may come from another machine
        with _mapped(self.url, error, verb):
            files, path = fsspec.url_to_fs(self.url)  # made once per process
            files.invalidate_cache()  # another process may have written
            yield files, path


FilePath: TypeAlias = Path | RemotePath


def to_path(place: str | PathLike[str]) -> FilePath:
    """Return the path of a file or folder: a `RemotePath` of a URL, else a `Path`.

    Raises:
        UsageError: For another type, a URL with a password or a query, of an unknown scheme, or
            that has lost a slash, as in a `Path`.
        MissingExtraError: For one of S3 without the extra `s3`.
    """
    if not isinstance(place, str | PathLike):
        raise UsageError(
            f"a path must be a string or a Path, got {with_article(type(place).__name__)}"
        )
    text = os.fspath(place)
    scheme, separator, rest = text.partition("://")
    if not separator or len(scheme) == 1:  # a drive of Windows
        _refuse_one_slash(place)
        return Path(place)
    if scheme.lower() in _SCHEMES_HERE:
        return _path_here(text, rest)
    user, at, _ = rest.partition("@")
    if (at and ":" in user) or "?" in rest or "::" in text:
        raise UsageError(
            f"the URL {scheme}://... must have no password, no '?' and no '::': set the "
            "credentials of its library in the environment, and pass the URL without them"
        )
    if not rest.strip("/"):
        raise UsageError(f"a URL must name a bucket or folder, got {text}")
    path = RemotePath(f"{scheme.lower()}://{rest.rstrip('/')}")
    _require_library(path.url)
    return path


def require_path_here(place: str | PathLike[str]) -> Path:
    """Return the path of a file or folder that cannot be behind a URL.

    Raises:
        UsageError: For a URL.
    """
    scheme, separator, _ = os.fspath(place).partition("://")
    if separator:
        raise UsageError(
            f"a path on this machine is needed here, got a URL ({scheme}://...): pass a local path"
        )
    _refuse_one_slash(place)
    return Path(place)


def _refuse_one_slash(place: str | PathLike[str]) -> None:
    """Refuse a URL that has lost a slash, as in a `Path`: it would be a folder named ``s3:``."""
    if (found := _OF_URL.match(os.fspath(place))) is not None:
        what = "a Path" if isinstance(place, Path) else f"'{found[1]}:/...'"
        raise UsageError(
            f"a URL must be a string with two slashes, got {what}: pass '{found[1]}://...'"
        )


def _path_here(url: str, rest: str) -> Path:
    """Return the path of a URL of this machine's file systems."""
    host, _, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise UsageError(
            f"the URL of a file on this machine must have three slashes, got {url}: pass its path"
        )
    from urllib.request import url2pathname  # it imports a client of HTTP

    return Path(url2pathname(f"/{path}"))


def make_folder(folder: FilePath) -> None:
    """Create a folder; behind a URL, where a file creates it, check that one can be written.

    Raises:
        OSError: If it cannot be created on this machine.
        OutputError: If it is a file behind a URL, or cannot be written there.
    """
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
        return
    if folder.exists() and not folder.is_dir():  # an object store has no objection
        raise OutputError(f"{folder} is a file: pass a folder")
    folder.require_writable()


@contextmanager
def write_whole(path: FilePath) -> Iterator[BinaryIO]:
    """Open a file that appears under its path, or replaces what is there, if the block succeeds.

    One behind a URL is held in memory until then.

    Raises:
        OutputError: If it cannot be written.
    """
    if isinstance(path, Path):
        with atomic_write(path) as file:
            yield file
        return
    content = io.BytesIO()
    yield content
    path.write_bytes(content.getvalue())


def _require_library(url: str) -> None:
    """Refuse a URL whose scheme is unknown, or needs a library that is not installed."""
    import fsspec

    scheme = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as exc:
        if scheme in ("s3", "s3a"):
            raise MissingExtraError(f"{scheme}://", "s3") from exc
        raise UsageError(f"{url} needs another package: {first_line(exc)}") from exc
    except ValueError as exc:
        raise UsageError(
            f"{url} must be a path, or a URL such as s3://BUCKET/FOLDER, got the unknown scheme "
            f"{scheme!r}"
        ) from exc


@contextmanager
def _mapped(url: str, error: type[MsmarcoQdrantError], verb: str) -> Iterator[None]:
    """Map every error of a library but `FileNotFoundError` to one of this package."""
    try:
        yield
    except FileNotFoundError as exc:
        if verb != "write":
            raise
        raise error(f"cannot write {url}: no such bucket or folder; create it first") from exc
    except PermissionError as exc:
        raise error(
            f"cannot {verb} {url}: access denied; check the credentials in the environment of "
            "this machine, and what they allow"
        ) from exc
    except Exception as exc:  # each library has its own
        reason = _SECRET.sub("", " ".join(str(exc).split()))[:_REASON_CHARS]
        raise error(f"cannot {verb} {url}: {reason or type(exc).__name__}") from exc


class _RemoteFile(io.RawIOBase):
    """A file of fsspec, open for reading."""

    def __init__(self, url: str, file: Any) -> None:
        self._url = url
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with _mapped(self._url, SourceError, "read"):
            found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def close(self) -> None:
        self._file.close()
        super().close()
