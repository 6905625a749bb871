"""The output folder of a step: its lock, and the settings that it was begun with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msmarco_qdrant.encoding.file_digests import file_sha256
from msmarco_qdrant.errors import OutputError, SourceError, UsageError
from msmarco_qdrant.runtime.atomic_file import atomic_write_text
from msmarco_qdrant.sources.file_path import require_path_here

if TYPE_CHECKING:
    from msmarco_qdrant.runtime.file_lock import FileLock

SETTINGS_FILE = "settings.json"
"""The file with the step and the settings of a folder."""
_LOCK = ".lock"


class OutFolder:
    """A locked folder that one run after another of the same step fills.

    A second run with the same settings resumes the first. One with other settings is refused, so
    a folder never mixes two recipes. Use it as a context manager::

        with OutFolder("negatives", "mine", {"depth": 100}) as folder:
            folder.write_json("report.json", {"queries": 10})

    Args:
        out: The folder; it is created if it is missing.
        step: The command that fills it, such as "mine".
        settings: JSON values that decide about the result, such as options and `digest_of` inputs.

    Attributes:
        path: The folder.
        is_resumed: True if an earlier run has begun it.

    Raises:
        UsageError: If it was begun by another step or with other settings, has other files, or is
            a URL.
        OutputError: If it cannot be written, or another process fills it.
    """

    def __init__(self, out: str | PathLike[str], step: str, settings: Mapping[str, Any]) -> None:
        self.path = require_path_here(out)
        self._lock = _lock(self.path)
        try:
            found = self.read_json(SETTINGS_FILE)
            self.is_resumed = found is not None
            begun = {"step": step, "settings": json.loads(json.dumps(settings))}
            if found is None:
                _check_empty(self.path, step)
                self.write_json(SETTINGS_FILE, begun)
            else:
                _check_same(self.path, found, begun)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the folder."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unlock the folder; without its settings if the step failed before it wrote a file."""
        try:
            if error is not None and not self._has_work():
                (self.path / SETTINGS_FILE).unlink(missing_ok=True)
        finally:
            self.close()

    def _has_work(self) -> bool:
        return any(
            file.is_file() and file.name not in (SETTINGS_FILE, _LOCK)
            for file in self.path.rglob("*")
        )

    def close(self) -> None:
        """Unlock the folder. A second call does nothing."""
        self._lock.release()

    def read_json(self, name: str) -> Any:
        """Return the value of a file in the folder; None if it is missing.

        Raises:
            OutputError: If it cannot be read.
        """
        return read_json(self.path / name)

    def write_json(self, name: str, value: Any) -> None:
        """Write or replace a file in the folder atomically.

        Raises:
            OutputError: If it cannot be written.
        """
        with atomic_write_text(self.path / name) as file:
            json.dump(value, file, ensure_ascii=False, indent=2)
            file.write("\n")


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; None if it is missing.

    Raises:
        OutputError: If it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise OutputError(f"cannot read {path}: {exc}; delete its folder, or name another") from exc


def digest_of(parts: Iterable[str]) -> str:
    """Return a digest of texts in their order, for the settings of a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def digest_files(source: str | PathLike[str]) -> str:
    """Return a digest of a file's bytes, or of a folder's files and their names.

    Files of a folder whose names begin with a dot do not count, nor do those of its folders.

    Raises:
        SourceError: If one cannot be read.
    """
    path = Path(source)
    try:
        if not path.is_dir():
            return file_sha256(path)
        files = sorted(one for one in path.iterdir() if one.is_file() and one.name[0] != ".")
        return digest_of(part for one in files for part in (one.name, file_sha256(one)))
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror or exc}; pass another file") from exc


def _lock(path: Path) -> FileLock:
    from msmarco_qdrant.runtime.file_lock import FileLock, FileLockedError

    try:
        path.mkdir(parents=True, exist_ok=True)
        return FileLock(path / _LOCK, str(os.getpid()).encode())
    except FileLockedError as exc:
        holder = exc.note.decode(errors="replace").strip() or "unknown"
        raise OutputError(
            f"the folder {path} is in use by process {holder}: wait for it to end, or name another "
            "folder"
        ) from exc
    except OSError as exc:
        raise OutputError(
            f"cannot write in the folder {path}: {exc.strerror}; name another folder"
        ) from exc


def _check_empty(path: Path, step: str) -> None:
    others = sorted(one.name for one in path.iterdir() if not one.name.startswith("."))
    if others:
        raise UsageError(
            f"out must be a new or empty folder, or one that {step} has begun, got {path} with "
            f"'{others[0]}': name another folder"
        )


def _check_same(path: Path, found: Any, begun: Mapping[str, Any]) -> None:
    """Refuse a folder of another step or of other settings, with the first difference."""
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise OutputError(f"{path / SETTINGS_FILE} is not of this package: name another folder")
    if found.get("step") != begun["step"]:
        raise UsageError(
            f"out must be a folder of {begun['step']}, got {path} of {found.get('step')}: name "
            "another folder"
        )
    before, after = found["settings"], begun["settings"]
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            raise UsageError(
                f"{path} was begun with {name} {_text(before.get(name))}, got "
                f"{_text(after.get(name))}: repeat the first call to resume it, or name another "
                "folder"
            )


def _text(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
