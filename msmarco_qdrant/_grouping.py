"""One best passage of each group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msmarco_qdrant.records import Meta
from msmarco_qdrant.search_records import Hit


def best_of_each(hits: Iterable[Hit], field: str) -> list[Hit]:
    """Leave out every hit all of whose groups a better one has shown.

    Args:
        hits: The best first.
        field: The field of `meta` whose values are the groups; dots go into objects. A list counts
            as each of its values.

    Returns:
        The hits that stay, in their order; a hit without the field does not.
    """
    seen: set[tuple[str, Any]] = set()
    best = []
    for hit in hits:
        groups = _groups(hit.meta, field)
        if not groups <= seen:
            best.append(hit)
            seen |= groups
    return best


def _groups(meta: Meta, field: str) -> set[tuple[str, Any]]:
    """The values of a field with their kind, as 1 and True are equal to Python."""
    value: Any = meta
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    values = value if isinstance(value, list) else [value]
    kept = (one for one in values if isinstance(one, str | int | float))
    return {("bool" if isinstance(one, bool) else "", one) for one in kept}
