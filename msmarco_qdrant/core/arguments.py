"""Arguments of public functions: unknown names, and plain values in place of objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from numbers import Integral, Real
from typing import Any, TypeVar, cast, get_args, get_type_hints

from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.errors import UnknownArgumentError, UsageError

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
_TYPES = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}


def suggest_keywords(function: _F) -> _F:
    """Decorate a function so that an unknown keyword argument is refused with the nearest name.

    Python suggests a name from 3.13 on. None is refused for an argument whose default is another
    value, unless its annotation has None. The signature stays, also for editors and type checkers.
    """
    parameters = inspect.signature(function).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        raise TypeError(f"{function.__qualname__}: write the parameters out, to check their names")
    names = parameters.keys() - {"self", "cls"}
    name = function.__qualname__.removesuffix(".__init__")
    never_none = {
        one.name: one.default
        for one in parameters.values()
        if one.default not in (None, one.empty) and "None" not in str(one.annotation)
    }

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if kwargs and not kwargs.keys() <= names:
            raise _unknown(name, [n for n in kwargs if n not in names], names)
        _refuse_none(never_none, {**dict(zip(parameters, args, strict=False)), **kwargs})
        return function(*args, **kwargs)

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def checked_async(*args: Any, **kwargs: Any) -> Any:
            return await checked(*args, **kwargs)

        return cast("_F", checked_async)
    return cast("_F", checked)


def to_settings(kind: type[_T], value: object, name: str, plain: str | None = None) -> _T:
    """Return settings that were given as an object, a dictionary of its fields, or a string.

    Args:
        kind: The dataclass.
        value: The argument.
        name: Its name, for messages.
        plain: The field that a string sets; None if no string is accepted.

    Raises:
        UsageError: For another type, an unknown field, or as `kind` raises it.
    """
    names = {one.name for one in fields(cast("Any", kind))}
    if isinstance(value, kind):
        _check_types(kind, {one: getattr(value, one) for one in names}, name)
        return value
    if isinstance(value, str) and plain is not None:
        return kind(**{plain: value})
    if isinstance(value, Mapping):
        unknown = [str(key) for key in value if key not in names]
        if unknown:
            raise UsageError(f"{name} has no field '{unknown[0]}': {_advice(unknown[0], names)}")
        _check_types(kind, value, name)
        return kind(**value)
    text = f"a string for its {plain}, " if plain is not None else ""
    raise UsageError(
        f"{name} must be {text}a dictionary of its fields ({', '.join(sorted(names))}) or "
        f"{with_article(kind.__name__)}, got {value!r}"
    )


def check_fields(settings: object) -> None:
    """Refuse a field of a plain type whose value has another one.

    Raises:
        UsageError: If one has.
    """
    values = {one.name: getattr(settings, one.name) for one in fields(cast("Any", settings))}
    _check_types(type(settings), values)


def check_counts(**counts: object) -> None:
    """Refuse anything but integers of 1 or more, or None.

    Raises:
        UsageError: If one is something else.
    """
    for name, value in counts.items():
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        if value is not None and not (is_integer and cast("int", value) >= 1):
            raise UsageError(f"{name} must be an integer of 1 or more, got {value!r}")


def _check_types(kind: type, values: Mapping[str, object], name: str | None = None) -> None:
    """Refuse a value of a plain type's field that has another type; `kind` checks the rest."""
    of_name = "" if name is None else f" of {name}"
    hints = get_type_hints(kind)
    for field, value in values.items():
        expected = [one for one in get_args(hints[field]) or (hints[field],) if one in _TYPES]
        is_none = value is None and type(None) in get_args(hints[field])
        if expected and not is_none and not any(_is(one, value) for one in expected):
            article = " or ".join(_TYPES[one] for one in expected)
            raise UsageError(f"{field}{of_name} must be {article}, got {value!r}")


def _is(expected: type, value: object) -> bool:
    if expected in (int, float):
        number = Integral if expected is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, expected)


def _refuse_none(defaults: Mapping[str, object], given: Mapping[str, object]) -> None:
    for name, default in defaults.items():
        if given.get(name, default) is None:
            raise UsageError(f"{name} must not be None: omit it for its default, {default!r}")


def _unknown(function: str, given: list[str], names: set[str]) -> UnknownArgumentError:
    """Return the error for the first unknown name."""
    advice = _advice(given[0], names)
    return UnknownArgumentError(f"{function}() has no argument '{given[0]}': {advice}")


def _advice(given: str, names: set[str]) -> str:
    nearest = get_close_matches(given, sorted(names), 1, 0.5)
    return f"did you mean '{nearest[0]}'?" if nearest else f"it takes {', '.join(sorted(names))}"
