"""The names of collections: an alias for users, and numbered physical names behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    SchemaError,
    StoreAccessError,
    StoreCorruptError,
    UsageError,
)

PHYSICAL = re.compile(r"(?P<name>.+)__(?P<number>\d{4})", re.ASCII)
"""The name of a physical collection: the name that users see, and a number."""

LOCKS = "msmarco_qdrant_locks"
"""The collection of migration locks on a server; see `server.locks`."""


def base_name(physical: str) -> str:
    """Return the name that users see for a physical name."""
    match = PHYSICAL.fullmatch(physical)
    return match["name"] if match else physical


def physical_name(name: str, number: int) -> str:
    """Return the name of a physical collection."""
    return f"{name}__{number:04d}"


def physical_number(physical: str) -> int:
    """Return the number in a physical name; 0 for a name without one."""
    match = PHYSICAL.fullmatch(physical)
    return int(match["number"]) if match else 0


def is_own_alias(alias: str, physical: str) -> bool:
    """True for an alias that this package made: `name` for `name__0001`."""
    return alias != physical and base_name(physical) == alias


def unknown_collection(name: str, aliases: Mapping[str, str], dsn: str) -> CollectionNotFoundError:
    """Return the error for an unknown name; its message lists the existing ones."""
    return CollectionNotFoundError(f"no collection '{name}' in {dsn}{_choice(aliases)}")


def foreign_collection(name: str, aliases: Mapping[str, str], dsn: str) -> StoreCorruptError:
    """Return the error for another program's collection; its message lists this package's."""
    return StoreCorruptError(
        f"collection '{name}' in {dsn} is another program's: it has no metadata of "
        f"msmarco-qdrant{_choice(aliases)}"
    )


def own_collection(name: str, dsn: str) -> UsageError:
    """Return the error for a collection of this package where another program's is expected."""
    return UsageError(
        f"collection '{name}' in {dsn} is already one of msmarco-qdrant, with its passages: "
        f"{advised_command('info', collection=base_name(name), store=dsn)} shows it"
    )


def unfinished_collection(physical: str, dsn: str) -> StoreCorruptError:
    """Return the error for a physical collection whose creation was interrupted."""
    return StoreCorruptError(
        f"collection '{physical}' in {dsn} has no metadata of msmarco-qdrant: its creation was "
        f"interrupted, or another program made it. If it has no points, the next ingest into "
        f"'{base_name(physical)}' creates it again"
    )


def foreign_alias(alias: str, physical: str, dsn: str) -> SchemaError:
    """Return the error for an alias that another program created."""
    return SchemaError(
        f"'{alias}' is an alias of {physical} in {dsn}, which another program created: choose "
        "another name"
    )


def hidden_collection(name: str, dsn: str) -> StoreAccessError:
    """Return the error for a collection that the API key may not see."""
    if PHYSICAL.fullmatch(name):
        return StoreAccessError(f"this key sees no collection {name} in {dsn}: it must name {name}")
    first, second = physical_name(name, 1), physical_name(name, 2)
    return StoreAccessError(
        f"this key sees no collection {name} in {dsn}: it must name {name} and {first}, the "
        f"physical collection behind it (after a re-embedding {second}, and so on)"
    )


def _choice(aliases: Mapping[str, str]) -> str:
    """Return the end of a message: the names to choose from."""
    if not aliases:
        return ". The store has no collection of msmarco-qdrant yet: ingest into a new one first"
    return (
        f"; there: {', '.join(sorted(aliases))}. Use one of these names, or ingest into a new one"
    )


def just_created(name: str, dsn: str) -> SchemaError:
    """Return the error for a physical collection that was missing just before its creation."""
    return SchemaError(
        f"a collection '{name}' exists already in {dsn}: another client has just created it; run "
        "the same command again"
    )
