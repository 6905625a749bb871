"""Dataclasses as JSON values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter


_T = TypeVar("_T")


def to_json_value(value: Any) -> Any:
    """Return a dataclass, or a list of one class, as dicts, lists and scalars for `json.dumps`.

    Keys are the names of the fields; tuples, named or not, become lists.
    """
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    kind: Any = type(value)
    return _adapter(kind).dump_python(value, mode="json")


def from_json_value(kind: Callable[..., _T], value: Any) -> _T:
    """Return the dataclass that `to_json_value` has converted.

    Raises:
        ValueError: If a field is missing or has another type.
    """
    found: _T = _adapter(kind).validate_python(value)
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
