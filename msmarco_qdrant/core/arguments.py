"""Keyword arguments of public functions: an unknown name is refused with the nearest right one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar, cast

from msmarco_qdrant.errors import UnknownArgumentError

_F = TypeVar("_F", bound=Callable[..., Any])


def suggest_keywords(function: _F) -> _F:
    """Decorate a function so that an unknown keyword argument is refused with the nearest name.

    Python suggests a name from 3.13 on. The signature stays, also for editors and type checkers.
    """
    names = inspect.signature(function).parameters.keys() - {"self", "cls"}

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.keys() <= names:
            raise _unknown(function.__qualname__, [n for n in kwargs if n not in names], names)
        return function(*args, **kwargs)

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def checked_async(*args: Any, **kwargs: Any) -> Any:
            return await checked(*args, **kwargs)

        return cast("_F", checked_async)
    return cast("_F", checked)


def _unknown(function: str, given: list[str], names: set[str]) -> UnknownArgumentError:
    """Return the error for the first unknown name."""
    nearest = get_close_matches(given[0], sorted(names), 1, 0.5)
    advice = f"did you mean '{nearest[0]}'?" if nearest else f"it takes {', '.join(sorted(names))}"
    return UnknownArgumentError(f"{function}() has no argument '{given[0]}': {advice}")
