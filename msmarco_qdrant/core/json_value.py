"""Dataclasses as JSON values."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def to_json_value(value: Any) -> Any:
    """Return a dataclass, or a list of one class, as dicts, lists and scalars for `json.dumps`.

    Keys are the names of the fields; tuples, named or not, become lists.
    """
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    kind: Any = type(value)
    return _adapter(kind).dump_python(value, mode="json")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
