"""Sha256 digests of a model's files, cached until a file's size or time changes."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, cached until its size or time changes."""
    return _file_sha256(*_cache_key(path))


def tokenizer_sha256(path: Path) -> str:
    """Return the digest of a `tokenizer.json` without its truncation and padding state."""
    return _tokenizer_sha256(*_cache_key(path))


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
