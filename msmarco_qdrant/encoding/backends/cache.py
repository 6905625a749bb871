"""Folders of the user's cache for what a start of a model can reuse."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def model_cache(kind: str) -> Path:
    """`$XDG_CACHE_HOME/msmarco-qdrant/KIND`, or under `~/.cache`.

    For a user without a home, as in some containers, a path at which there can be no file.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(os.devnull if base.startswith("~") else base) / "msmarco-qdrant" / kind


def mark_used(path: Path) -> None:
    """Let `prune` keep a file that was read; without effect in a cache that is only readable."""
    with suppress(OSError):
        os.utime(path)


def prune(folder: Path, pattern: str, kept: int) -> None:
    """Remove all files of a pattern but the last ones that were written or marked as used."""
    dated = []
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process prunes, too
            dated.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(dated, reverse=True)[kept:]:
        path.unlink(missing_ok=True)
