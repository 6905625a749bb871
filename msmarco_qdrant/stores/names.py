"""The names of collections: an alias for users, and numbered physical names behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msmarco_qdrant.errors import CollectionNotFoundError

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
    if not aliases:
        return CollectionNotFoundError(
            f"no collection '{name}' in {dsn}, which is empty: ingest into it first"
        )
    known = sorted(aliases)
    return CollectionNotFoundError(
        f"no collection '{name}' in {dsn}; there: {', '.join(known)}. Pass one of them, such as "
        f"collection={known[0]}, or ingest into a new one"
    )
