"""The names of collections: what users see, and what stands behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msmarco_qdrant.errors import CollectionNotFoundError

PHYSICAL = re.compile(r"(?P<name>.+)__(?P<number>\d{4})", re.ASCII)
"""A physical collection's name: the name that users see, and a number."""

LOCKS = "msmarco_qdrant_locks"
"""The collection of a server that says who is migrating what; see `server_locks`."""


def base_name(physical: str) -> str:
    """The name that users see, of a physical collection's."""
    match = PHYSICAL.fullmatch(physical)
    return match["name"] if match else physical


def physical_name(name: str, number: int) -> str:
    """The name of a physical collection."""
    return f"{name}__{number:04d}"


def physical_number(physical: str) -> int:
    """The number in a physical collection's name; 0 for a name without one."""
    match = PHYSICAL.fullmatch(physical)
    return int(match["number"]) if match else 0


def is_own_alias(alias: str, physical: str) -> bool:
    """Whether an alias is one of ours: `name` for `name__0001`."""
    match = PHYSICAL.fullmatch(physical)
    return match is not None and match["name"] == alias


def unknown_collection(name: str, aliases: Mapping[str, str], dsn: str) -> CollectionNotFoundError:
    """The error for a name that leads nowhere, with those there are."""
    if not aliases:
        return CollectionNotFoundError(
            f"no collection '{name}' in {dsn}; there is none at all: ingest into one first"
        )
    return CollectionNotFoundError(
        f"no collection '{name}' in {dsn}; there: {', '.join(sorted(aliases))}. Pass one of them "
        "with --collection, or ingest into a new one"
    )
