"""Checks of values that a migration file holds, which nobody else has looked at."""

from __future__ import annotations

from msmarco_qdrant.errors import UsageError

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
