"""Paths of fields in `meta`: dots nest, quotation marks keep a name whole.

| path | field |
| --- | --- |
| `year` | `year` |
| `author.name` | `name` of the object `author`, or of each object of the list `author` |
| `"author.name"` | the field whose name is `author.name`; the same for names with brackets |
| `author."first name"` | `first name` of `author`; spaces need no quotation marks |
| `tags[0]`, `author[].name` | an item of a list; only the objects of a list |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

from msmarco_qdrant.errors import UsageError

_PLACE = re.compile(r"\[([0-9]*)\]")
_STEP = re.compile(
    r'(?:"(?P<quoted>[^"]*)"|(?P<plain>[^".]+?|))(?P<places>(?:\[[0-9]*\])*)(?P<end>\.|\Z)'
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_MAX_DOTS = 8  # each doubles the number of keys


@dataclass(frozen=True, slots=True)
class _Step:
    """A name, and its explicit places in lists, such as `[]` or `[0]`."""

    name: str
    places: str

    @property
    def key(self) -> str:
        """Its form in a JSON path of Qdrant."""
        is_plain = _PLAIN_NAME.fullmatch(self.name)
        return (self.name if is_plain else f'"{self.name}"') + self.places


def check_field(field: object) -> None:
    """Check the path of a `meta` field in a filter, a payload index or `group_by`.

    Raises:
        UsageError: If it is not a string, has a quotation mark inside of a name, a NUL, a lone
            surrogate or more than eight dots.
    """
    if not isinstance(field, str) or "\0" in field or any("\ud800" <= c <= "\udfff" for c in field):
        raise UsageError(
            "the field of a filter or an index must be a string without NUL and lone surrogates, "
            f"got {field!r}"
        )
    if (dots := len(_parse(field)) - 1) > _MAX_DOTS:
        raise UsageError(f"a field must have at most {_MAX_DOTS} dots, got {dots}: {field!r}")


def check_object_field(field: str) -> None:
    """Check the path of a field whose objects a filter has conditions on.

    Raises:
        UsageError: For a number directly after `[]`, which no condition of Qdrant expresses.
    """
    if any(re.search(r"\[\]\[[0-9]", step.places) for step in _parse(field)):
        raise UsageError(
            f"a filter on objects must not count the items of each list of a list, got {field!r}: "
            "write [] instead of the number"
        )


def payload_keys(field: str, inside: str = "meta.") -> Sequence[str]:
    """Return the JSON paths in a payload that a field means, the one without lists first.

    Qdrant's `a.b` goes into objects only, and `a[].b` into objects of a list only.

    Args:
        field: The path of the field.
        inside: The start of the keys: of an object in the payload, or nothing in an object of a
            nested condition.
    """
    *parents, last = _parse(field)
    choices = [[step.key] if step.places else [step.key, step.key + "[]"] for step in parents]
    return [inside + ".".join((*chosen, last.key)) for chosen in product(*choices)]


def root_key(field: str) -> str:
    """Return the payload key of the first name of a field, with all that is inside of it."""
    return f"meta.{replace(_parse(field)[0], places='').key}"


def field_values(meta: Mapping[str, Any], field: str) -> Sequence[Any]:
    """Return the values of a field in `meta`, as Qdrant finds them by `payload_keys`.

    Returns:
        Several if the path goes through a list; a value may be a list itself.
    """
    found: list[Any] = [meta]
    steps = _parse(field)
    for number, step in enumerate(steps, start=1):
        found = [v[step.name] for v in found if isinstance(v, dict) and step.name in v]
        for place in _PLACE.findall(step.places) if step.places else ():
            found = [item for value in found for item in _items(value, place)]
        if not step.places and number < len(steps):
            found = [item for value in found for item in _objects(value)]
    return found


def flatten(values: Sequence[Any]) -> Sequence[Any]:
    """Return values with the items of lists in place of the lists, one level deep."""
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def only_string(meta: Mapping[str, Any], field: str) -> str | None:
    """Return the value of a field that holds one non-empty string; None for anything else."""
    values = flatten(field_values(meta, field))
    return values[0] if len(values) == 1 and isinstance(values[0], str) and values[0] else None


@lru_cache(maxsize=256)  # the same few fields, for each passage that is read
def _parse(field: str) -> tuple[_Step, ...]:
    steps: list[_Step] = []
    at = 0
    while (found := _STEP.match(field, at)) is not None:
        quoted, plain, places, end = found.groups()
        steps.append(_Step(plain if quoted is None else quoted, places))
        at = found.end()
        if not end:
            return tuple(steps)
    raise UsageError(
        'a field must have quotation marks around a whole name only, such as "first.name" or '
        f'author."first.name", got {field}'
    )


def _items(value: Any, place: str) -> Sequence[Any]:
    if not isinstance(value, list):
        return []
    return value if place == "" else value[int(place) : int(place) + 1]


def _objects(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]
