"""Sha256 digests of files: of a model's, cached until its size or time changes, and of code."""

from __future__ import annotations

import hashlib
import json
from functools import cache, lru_cache
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, cached until its size or time changes."""
    return _file_sha256(*_cache_key(path))


def tokenizer_sha256(path: Path) -> str:
    """Return the digest of a `tokenizer.json` without its truncation and padding state."""
    return _tokenizer_sha256(*_cache_key(path))


@cache
def code_sha256(folder: Path = Path(__file__).parent) -> str:
    """Return the digest of every module in a folder and below; of `encoding` in a millisecond.

    Remembered results depend on it. It is of all modules, so that none which a forward pass uses is
    forgotten.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{content} {path.relative_to(folder).as_posix()}\n".encode())
    return digest.hexdigest()


def _cache_key(path: Path) -> tuple[Path, int, int]:
    """Return the key of a cached digest: path, size in bytes, modification time in ns."""
    status = path.stat()
    return path.resolve(), status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _file_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _tokenizer_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    content = json.loads(path.read_text("utf-8"))
    for state in ("truncation", "padding"):
        content.pop(state, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
