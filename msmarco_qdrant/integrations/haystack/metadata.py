"""Summaries of the `meta` fields of documents, as Haystack's stores return them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from msmarco_qdrant.integrations.haystack.documents import RESERVED

_KINDS = {bool: "boolean", int: "int", float: "float"}


def field_kinds(metas: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the kind of each field: boolean, int, float or keyword."""
    return {
        name: {"type": _KINDS.get(type(value), "keyword")}
        for meta in metas
        for name, value in meta.items()
        if name != RESERVED and value is not None
    }


def least_and_most(metas: Iterable[Mapping[str, Any]], field: str) -> dict[str, Any]:
    """Return the least and the greatest value of a field; None for both if it has no order."""
    values = [value for value in _values(metas, field) if isinstance(value, int | float | str)]
    if not values or len({isinstance(value, str) for value in values}) > 1:
        return {"min": None, "max": None}
    return {"min": min(values), "max": max(values)}


def distinct_values(metas: Iterable[Mapping[str, Any]], field: str) -> list[Any]:
    """Return the values of a field in the order of their texts; 1, 1.0, "1" and True are four."""
    found = {(type(v).__name__, json.dumps(v, sort_keys=True)): v for v in _values(metas, field)}
    return [found[key] for key in sorted(found, key=lambda key: (str(found[key]), key[0]))]


def _values(metas: Iterable[Mapping[str, Any]], field: str) -> Iterable[Any]:
    name = field.removeprefix("meta.")
    return (meta[name] for meta in metas if meta.get(name) is not None)
