"""Migration files: a small Python file with a name, a description and one operation.

A migration's name is that of its file, `NNNN_name.py`. Other files in the folder must not begin
with a digit. The file defines `DESCRIPTION`, one line of text, and either

* `OPERATION`, one of `msmarco_qdrant.operations` or any object with `cost` and `apply`, or
* a function `up(store, plan)`, and optionally `COST`, one line of text about its cost.

The package's own migrations are in `migrations/` of a checkout and in `msmarco_qdrant/_migrations/`
of an installed wheel. They are loaded by path, as a user's folder is.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    PayloadIndex,
    ShardSettings,
    StorageSettings,
)
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.errors import StoreCorruptError, UsageError
from msmarco_qdrant.stores import Collection, Store

_RENAMED = {"'quantisation'": "'quantization'", "'alterable'": "'Store.admin_collection'"}
"""Removed names, as errors of migration files quote them, and the new names."""
_FILE_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.py")


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """The name and settings of a physical collection.

    Attributes:
        physical: The physical collection's name.
        encoder: The encoder of its dense vectors.
        bm25: The settings of its sparse vectors.
        storage: The storage of its dense vectors.
        payload_indexes: Payload keys to index, besides those that this package needs.
        sharding: Shards and replicas on a server; None for the server's defaults.
    """

    physical: str
    encoder: EncoderInfo
    bm25: Bm25Settings
    storage: StorageSettings
    payload_indexes: Mapping[str, PayloadIndex] = field(default_factory=dict)
    sharding: ShardSettings | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The collection that an operation works on.

    Attributes:
        store: The store that holds it.
        plan: Its name and settings; of an existing collection, the current ones.
        on_progress: Call it regularly with the passages done and their total.
        check: Call it before each write; raises `StoreInUseError` if the lock was taken away.
    """

    store: Store
    plan: CollectionPlan
    on_progress: Callable[[int, int], None] = lambda _done, _total: None
    check: Callable[[], None] = lambda: None

    @property
    def collection(self) -> Collection:
        """The physical collection."""
        return self.store.collection(self.plan.physical)


@runtime_checkable
class Operation(Protocol):
    """The work of a migration. It may be interrupted anywhere; a repeated call completes it."""

    def cost(self, target: Target) -> str:
        """Describe in one line the cost on the collection as it is. Changes nothing."""
        ...

    def apply(self, target: Target) -> None:
        """Do the work; returns when it is done."""
        ...


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration.

    Attributes:
        name: The file's name, without `.py`.
        description: One line of text.
        operation: The work to do.
        folder: The name of the user's folder; "" for one of the package's own.
        checksum: A digest of the file's content, in hexadecimal, the same for any line ends.
    """

    name: str
    description: str
    operation: Operation
    folder: str = ""
    checksum: str = ""

    @property
    def number(self) -> str:
        """The four digits at the start of its name."""
        return self.name[:4]


@dataclass(frozen=True, slots=True)
class _UpFunction:
    """The operation of a file that defines `up(store, plan)`."""

    up: Callable[[Store, CollectionPlan], None]
    cost_text: str

    def cost(self, target: Target) -> str:  # noqa: ARG002  # the text is constant
        return self.cost_text

    def apply(self, target: Target) -> None:
        self.up(target.store, target.plan)


def load_migrations(directory: Path | None = None) -> Sequence[Migration]:
    """Load the migrations of a directory in the order of their numbers.

    The package's own are loaded once per process.

    Args:
        directory: By default the package's own.

    Raises:
        UsageError: If the directory does not exist, a file in it is not a migration or cannot be
            loaded, a name that begins with a digit is malformed, or two have the same number.
    """
    if directory is None:
        return _load_own(_own_directory())
    return [
        replace(migration, folder=directory.resolve().name or "/")
        for migration in _load_directory(directory)
    ]


@cache
def _load_own(directory: Path) -> Sequence[Migration]:
    return tuple(_load_directory(directory))


def _load_directory(directory: Path) -> Sequence[Migration]:
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory of migrations: it does not exist")
    paths = [path for path in sorted(directory.glob("*.py")) if path.name[0].isdigit()]
    for path in paths:
        _check_file_name(path)
    migrations = [_load(path) for path in paths]
    for first, second in pairwise(migrations):
        if first.number == second.number:
            raise UsageError(
                f"{first.name} and {second.name} in {directory} have the same number: give the "
                "later one a higher number"
            )
    return migrations


def _own_directory() -> Path:
    package = Path(__file__).parent.parent
    for directory in (package / "_migrations", package.parent / "migrations"):
        if directory.is_dir():
            return directory
    raise StoreCorruptError(f"the installation is incomplete: {package} contains no migrations")


def _check_file_name(path: Path) -> None:
    """Refuse a malformed name; such a file would be skipped silently."""
    if not _FILE_NAME.fullmatch(path.name):
        raise UsageError(
            "file name of a migration must be four digits, '_', and lower-case letters, digits or "
            f"'_', such as 0002_denser_graph.py, got {path}; other files must not begin with a "
            "digit"
        )


def _load(path: Path) -> Migration:
    module = _execute(path)
    description, operation = getattr(module, "DESCRIPTION", None), _read_operation(module, path)
    if not isinstance(description, str) or operation is None:
        raise UsageError(
            f"{path} is not a migration: it must define DESCRIPTION, a line of text, and either "
            "OPERATION or up(store, plan)"
        )
    content = path.read_bytes().replace(b"\r\n", b"\n")
    checksum = blake2b(content, digest_size=16).hexdigest()
    return Migration(path.stem, description, operation, checksum=checksum)


def _execute(path: Path) -> ModuleType:
    """Load a file as a module, registered under a name unique to its folder.

    It must be in `sys.modules` while it runs: dataclasses look their module up there.
    """
    folder = blake2b(os.fsencode(path.parent.resolve()), digest_size=8).hexdigest()
    name = f"msmarco_qdrant_migration_{folder}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as exc:
        sys.modules.pop(name, None)
        if not isinstance(exc, Exception):
            raise
        error = f"{type(exc).__name__}: {exc}"
        hints = [f"; {old} is now {new}" for old, new in _RENAMED.items() if old in error]
        raise UsageError(f"{path} cannot be loaded: {error}{''.join(hints)}") from exc
    return module


def _read_operation(module: ModuleType, path: Path) -> Operation | None:
    operation, up = getattr(module, "OPERATION", None), getattr(module, "up", None)
    if isinstance(operation, type):
        raise UsageError(
            f"OPERATION of {path} must be an instance, such as {operation.__name__}(...), got the "
            f"class {operation.__name__}"
        )
    if isinstance(operation, Operation) and up is None:
        return operation
    if not callable(up) or operation is not None:
        return None
    cost = getattr(module, "COST", "unknown: the migration defines its own code")
    if not isinstance(cost, str):
        raise UsageError(f"COST of {path} must be a line of text, got {cost!r}")
    return _UpFunction(up, cost)
