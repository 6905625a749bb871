"""Parsed bodies to operations and searches; validation errors to one problem."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Request
from pydantic import ValidationError

from msmarco_qdrant.service.http.problems import MALFORMED, ProblemError, invalid
from msmarco_qdrant.service.http.schemas import (
    MAX_PASSAGES,
    MAX_PID_CHARS,
    PassageIn,
    RequestModel,
)
from msmarco_qdrant.service.interfaces import Operation, Write

_Model = TypeVar("_Model", bound=RequestModel)

_MAX_ERRORS: Final = 20
_PID: Final = f"must be a string of 1 to {MAX_PID_CHARS:,} characters, or an integer of 64 bits"
_EXAMPLE: Final = 'must be a pid, or an object with one of "pid", "text" and "vector"'
_FORMS: Final = {
    "pid": _PID,
    "pids": _PID,
    "positive": _EXAMPLE,
    "negative": _EXAMPLE,
    "fusion": (
        'must be convex, rrf, dbsf, or an object such as {"method": "convex", "dense_weight": 0.5}'
        ", with dense_weight 0 to 1, depth 1 to 10,000 and k 1 or more"
    ),
    "filter": (
        'must be a value, a list of values, a range such as {"gte": 2001}, {"exists": true}, '
        '{"text": "two words"}, {"geo_radius": {"lat": 52.5, "lon": 13.4, "radius_m": 5000}}, '
        '{"object": {"name": "Ada"}}, or some of them in {"not": ...}, {"any": [...]} or '
        '{"all": [...]}; integers have 64 bits, bounds are numbers, dates such as '
        "2024-05-01 or moments such as 2024-05-01T12:30:00+02:00"
    ),
}
_PLACES: Final = {
    "pid": 1,
    "fusion": 1,
    "pids": 2,
    "positive": 2,
    "negative": 2,
    "filter": 2,
}  # parts of an error's place
_TAG: Final = re.compile(r"\[[a-z_]+\]")  # of a form that a validator chose, or a key
_UNKNOWN: Final = "unknown field"


def parse_passages(given: object, lines: Sequence[int] | None = None) -> list[Operation]:
    """Return the writes of a parsed body; all of them, or none.

    Args:
        given: The body, which must be a list of passages.
        lines: The number of each passage's line, if they came as lines.

    Raises:
        ProblemError: Naming the first invalid passages.
    """
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_PASSAGES:
        found = f"{len(given):,}" if isinstance(given, list) else "no array"
        raise invalid(f"A batch must be an array of 1 to {MAX_PASSAGES:,} passages, got {found}.")
    operations: list[Operation] = []
    errors: list[Mapping[str, object]] = []
    for place, row in enumerate(given):
        try:
            passage = PassageIn.model_validate(row)
            operations.append(Write(str(passage.pid), passage.text, passage.meta))
        except ValidationError as exc:
            where = f"line {lines[place]}" if lines else str(place)
            errors += _list_errors(exc, f"{_UNKNOWN}: put it into meta", where)
            if len(errors) >= _MAX_ERRORS:
                break
    if errors:
        raise invalid("The batch is invalid: see errors.", errors[:_MAX_ERRORS])
    return operations


def parse_pid(pid: str) -> str:
    """Return the pid of a passage to delete.

    Raises:
        ProblemError: If no passage can have it.
    """
    try:
        return str(PassageIn(pid=pid, text="any").pid)
    except ValidationError as exc:
        raise invalid("The pid is invalid: see errors.", _list_errors(exc, _UNKNOWN)) from None


def check_utf8(request: Request) -> None:
    """Refuse a path whose bytes the server replaced to decode it.

    Raises:
        ProblemError: For such a path.
    """
    try:
        unquote_to_bytes(request.scope.get("raw_path") or b"").decode()
    except UnicodeDecodeError:
        raise ProblemError(MALFORMED, "The path must be UTF-8.") from None


def parse_request(model: type[_Model], given: object) -> _Model:
    """Return the request of a parsed body.

    Raises:
        ProblemError: If it is invalid.
        UsageError: For a range without bounds, or of numbers and moments.
    """
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        unknown = f"{_UNKNOWN}: must be one of {', '.join(model.model_fields)}"
        name = model.__name__.removesuffix("In").lower()
        raise invalid(f"The {name} is invalid: see errors.", _list_errors(exc, unknown)) from None


def _list_errors(
    exc: ValidationError, unknown: str, *prefix: str
) -> Sequence[Mapping[str, object]]:
    """Return one error per place; a pid or a filter's field may have several forms."""
    reasons: dict[str, str] = {}
    for error in exc.errors(include_url=False, include_context=False):
        loc = [part for part in error["loc"] if not _TAG.fullmatch(str(part))]
        place = loc[: _PLACES.get(str(loc[0]), len(loc))] if loc else loc
        where = ".".join([*prefix, *(str(part)[:80] for part in place)]) or "body"
        is_inner = error["type"] == "extra_forbidden" and len(loc) > 1
        is_known = (where in reasons or is_inner) and str(loc[0]) in _FORMS
        reasons[where] = _FORMS[str(loc[0])] if is_known else _describe(error, unknown)
    errors = [{"where": where, "reason": reason} for where, reason in reasons.items()]
    return errors[:_MAX_ERRORS]


def _describe(error: Mapping[str, Any], unknown: str) -> str:
    """Return the rule, then the value if it is short."""
    match error["type"]:
        case "extra_forbidden":
            return unknown
        case "model_type":
            return "must be an object"
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
    rule = re.sub(r"^\w+ should\b", "must", str(error["msg"]))
    value = error["input"]
    is_short = isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 40)
    return f"{rule}, got {value!r:.40}" if is_short else rule
