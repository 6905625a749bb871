"""Checks of values that come from outside, a caller or a migration's file, with what is wrong."""

from __future__ import annotations

from typing import get_args

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import check_field
from msmarco_qdrant.records import PayloadIndex

_TYPES = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}


def check_some(*values: object, name: str) -> None:
    """Refuse a change of nothing."""
    if all(value is None for value in values):
        raise UsageError(f"nothing is to be changed: say what, as in {name}")


def check_type(wanted: type, **values: object) -> None:
    """Refuse what is neither None nor of a type; an integer is a float, a truth value no number."""
    for name, value in values.items():
        fits = isinstance(value, (int, float) if wanted is float else wanted)
        if value is not None and (not fits or (isinstance(value, bool) and wanted is not bool)):
            raise UsageError(f"{name}={value!r}: expected {_TYPES[wanted]}")


def check_least(name: str, value: int | None, least: int) -> None:
    """Refuse a number that is too small."""
    if value is not None and value < least:
        raise UsageError(f"{name}={value}: expected {least} or more")


def check_index(field: str, kind: PayloadIndex) -> None:
    """Refuse a payload index of a `meta` field that there cannot be.

    Raises:
        UsageError: For a name that no field can have, or a kind that there is not.
    """
    check_field(field)
    if kind not in get_args(PayloadIndex):
        kinds = ", ".join(get_args(PayloadIndex))
        raise UsageError(f"'{field}' cannot have an index of kind {kind!r}: expected {kinds}")
