"""What a migration is: a small Python file with a name, a description and one operation.

The name is the file's, `NNNN_name.py`; other files whose names begin with no digit may lie beside
it. The file holds a line about it, `DESCRIPTION`, and either

* `OPERATION`, one of `msmarco_qdrant.operations` or whatever else has `cost` and `apply`, or
* a function `up(store, plan)`, and if it likes a line `COST` about what it takes.

The package's own are in `migrations/` of a checkout and in `msmarco_qdrant/_migrations/` of an
installed wheel; both are loaded by path, and so is a folder of the user's.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

from msmarco_qdrant.core.records import Bm25Settings, EncoderInfo, PayloadIndex, StorageSettings
from msmarco_qdrant.errors import StoreCorruptError, UsageError
from msmarco_qdrant.stores import Collection, Store

_FILE_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.py")


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """What a migration is told: the physical collection and what it is for.

    Attributes:
        physical: The physical collection's name.
        encoder: Whose vectors are, or will be, inside.
        bm25: The settings of its sparse vectors.
        storage: How its dense vectors are kept.
        payload_indexes: Payload keys to index beside those that this package needs itself.
    """

    physical: str
    encoder: EncoderInfo
    bm25: Bm25Settings
    storage: StorageSettings
    payload_indexes: Mapping[str, PayloadIndex] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """What an operation works on.

    Attributes:
        store: Where the collection is.
        plan: Which it is; for one that is there already, what it is now.
        on_progress: To be called now and then with the passages that are through and their number.
        check: To be called before each write; raises `StoreInUseError` if the lock was taken away.
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
    """What a migration does. It may be interrupted anywhere: done again, it completes."""

    def cost(self, target: Target) -> str:
        """What it takes on this collection as it is now, in a line. Changes nothing."""
        ...

    def apply(self, target: Target) -> None:
        """Do it; returns when it is done."""
        ...


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration: its name (the file's, without `.py`), a line about it, its operation."""

    name: str
    description: str
    operation: Operation

    @property
    def number(self) -> str:
        """The four digits that its name begins with."""
        return self.name[:4]


@dataclass(frozen=True, slots=True)
class _Function:
    """The operation of a file that has a function `up(store, plan)`."""

    up: Callable[[Store, CollectionPlan], None]
    told: str

    def cost(self, target: Target) -> str:  # noqa: ARG002  # it is the same for each
        return self.told

    def apply(self, target: Target) -> None:
        self.up(target.store, target.plan)


def load_migrations(directory: Path | None = None) -> Sequence[Migration]:
    """The migrations of a directory in the order of their numbers.

    Args:
        directory: By default the package's own.

    Raises:
        UsageError: If there is no such directory, a file there is no migration or cannot be
            loaded, one's name begins with a digit and is not of the form, or two have the same
            number.
    """
    directory = directory or _own_directory()
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory of migrations: it does not exist")
    paths = [path for path in sorted(directory.glob("*.py")) if path.name[0].isdigit()]
    for path in paths:
        _check_file_name(path)
    found = [_load(path) for path in paths]
    for one, other in pairwise(found):
        if one.number == other.number:
            raise UsageError(
                f"{one.name} and {other.name} in {directory} have the same number: give the later "
                "one a higher number"
            )
    return found


def _own_directory() -> Path:
    package = Path(__file__).parent.parent
    for directory in (package / "_migrations", package.parent / "migrations"):
        if directory.is_dir():
            return directory
    raise StoreCorruptError(f"the installation is incomplete: {package} holds no migrations")


def _check_file_name(path: Path) -> None:
    """Refuse what is meant as a migration, most likely, and would be overlooked."""
    if not _FILE_NAME.fullmatch(path.name):
        raise UsageError(
            f"{path} cannot be a migration by its name: expected four digits, '_', and lower-case "
            "letters, digits or '_', such as 0002_denser_graph.py; what is no migration must not "
            "begin with a digit"
        )


def _load(path: Path) -> Migration:
    module = _executed(path)
    description, operation = getattr(module, "DESCRIPTION", None), _operation(module, path)
    if not isinstance(description, str) or operation is None:
        raise UsageError(
            f"{path} is no migration: expected DESCRIPTION, a line of text, and either OPERATION "
            "or up(store, plan)"
        )
    return Migration(path.stem, description, operation)


def _executed(path: Path) -> ModuleType:
    """Its module, under a name of its folder's own: dataclasses look it up while they are made."""
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
        raise UsageError(f"{path} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    return module


def _operation(module: ModuleType, path: Path) -> Operation | None:
    operation, up = getattr(module, "OPERATION", None), getattr(module, "up", None)
    if isinstance(operation, type):
        raise UsageError(
            f"{path} is no migration: OPERATION is the class {operation.__name__}; expected one "
            f"with its values, as in {operation.__name__}(...)"
        )
    if isinstance(operation, Operation) and up is None:
        return operation
    if callable(up) and operation is None:
        return _Function(up, _cost(module, path))
    return None


def _cost(module: ModuleType, path: Path) -> str:
    told = getattr(module, "COST", "not known: it is code of its own")
    if not isinstance(told, str):
        raise UsageError(f"{path} is no migration: COST is {told!r}; expected a line of text")
    return told
