"""What a parsed body asks for, checked against the types and the limits.

What could be wrong a million times in one body is counted first, and refused at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

from pydantic_core import ValidationError, to_json

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.filters import Condition, Exists, MetaFilter, Not, Range
from msmarco_qdrant.service.http.problems import invalid
from msmarco_qdrant.service.http.schemas import ExistsIn, NotIn, PassageIn, RangeIn, SearchIn
from msmarco_qdrant.service.interfaces import Limits, Operation, Write
from msmarco_qdrant.sources.rows import RowError, check_passage

_ERRORS_TOLD: Final = 20
_CONDITIONS: Final = (
    'Expected a value, a list of values, a range such as {"gte": 2001}, {"exists": true}, or one '
    'of them in {"not": ...}; integers have 64 bits.'
)
_BELONGS_IN_META: Final = "unknown field: put it into meta"
_NO_FIELD: Final = (
    "unknown field: expected query or queries, and, if you like, limit, mode, filter or rerank"
)
_NO_INDEX: Final = re.compile(r"\[[0-9]{10,}")  # of a list: no engine counts that far


def passages_of(
    given: object, limits: Limits, lines: Sequence[int] | None = None
) -> list[Operation]:
    """The writes that a parsed body asks for; all of them, or none.

    Args:
        given: What should be a list of passages.
        limits: What bounds them.
        lines: The number of each one's line, if they came as lines.

    Raises:
        ProblemError: Naming the first passages that cannot go in.
    """
    if not isinstance(given, list):
        raise invalid("Expected an array of passages.")
    if not 1 <= len(given) <= limits.passages:
        raise invalid(f"{len(given):,} passages: expected 1 to {limits.passages:,} a batch.")
    operations: list[Operation] = []
    errors: list[dict[str, object]] = []
    for place, one in enumerate(given):
        where = f"line {lines[place]}" if lines else str(place)
        try:
            operations.append(_write(PassageIn.model_validate(_of_few_fields(one)), limits))
        except ValidationError as exc:
            errors += _errors(exc, _BELONGS_IN_META, where)
        except RowError as exc:
            errors.append({"where": where, "reason": str(exc)})
        if len(errors) >= _ERRORS_TOLD:
            break
    if errors:
        raise invalid("The passages cannot be taken in.", errors[:_ERRORS_TOLD])
    return operations


def checked_pid(pid: str, limits: Limits) -> str:
    """The pid of a passage to delete.

    Raises:
        ProblemError: If no passage can have it.
    """
    try:
        return _checked(Passage(pid, "any"), limits).pid
    except RowError as exc:
        raise invalid(f"No passage has that pid: {exc}.") from None


def search_of(given: object, limits: Limits) -> SearchIn:
    """The search that a parsed body asks for, within limits.

    Raises:
        ProblemError: If it cannot be served.
    """
    _check_counts(given, limits)
    try:
        search = SearchIn.model_validate(given)
    except ValidationError as exc:
        raise invalid("The search cannot be served.", _errors(exc, _NO_FIELD)) from None
    if (search.query is None) == (search.queries is None):
        raise invalid("Expected either 'query', or 'queries'.")
    _check_size(search, limits)
    return search


def queries_of(search: SearchIn) -> Sequence[str]:
    """What to search for."""
    return [search.query] if search.query is not None else search.queries or []


def rerank_depth_of(search: SearchIn, limits: Limits) -> int | None:
    """How many passages a query to rerank, None for none."""
    return max(search.limit, limits.rerank_depth) if search.rerank else None


def filter_of(given: Mapping[str, Any] | None) -> MetaFilter | None:
    """The package's own form of a filter that `SearchIn` has checked.

    Raises:
        ProblemError: For a moment that is none.
        UsageError: For a range that holds everything, or mixes numbers and moments.
    """
    if not given:
        return None
    return {field: _condition(field, one) for field, one in given.items()}


def _write(given: PassageIn, limits: Limits) -> Write:
    """A passage to put in, if a file's row could be it.

    Raises:
        RowError: If it cannot go in.
    """
    passage = _checked(Passage(str(given.pid), given.text, given.meta), limits)
    return Write(passage.pid, passage.text, passage.meta)


def _checked(passage: Passage, limits: Limits) -> Passage:
    for what, size, most in (
        ("pid", len(passage.pid), limits.pid_chars),
        ("text", len(passage.text), limits.text_chars),
    ):
        if size > most:
            raise RowError(f"the {what} has {size:,} characters: expected {most:,} at most")
    found = check_passage(passage)
    if found.meta and (size := len(to_json(found.meta))) > limits.meta_bytes:
        raise RowError(f"the meta has {size:,} bytes: expected {limits.meta_bytes:,} at most")
    return found


def _of_few_fields(given: object) -> object:
    """The same; each unknown field would be an error of its own, however many there are.

    Raises:
        RowError: If it has more fields than a passage can have.
    """
    if isinstance(given, dict) and len(given) > len(PassageIn.model_fields):
        raise RowError(
            f"{len(given):,} fields: expected {', '.join(PassageIn.model_fields)}, and the others "
            "inside meta"
        )
    return given


def _check_counts(given: object, limits: Limits) -> None:
    """Refuse at once what would take long to refuse one by one."""
    if not isinstance(given, dict):
        return
    if len(given) > len(SearchIn.model_fields):
        raise invalid(
            f"{len(given):,} fields: expected some of {', '.join(SearchIn.model_fields)}."
        )
    queries = given.get("queries")
    if isinstance(queries, list) and len(queries) > limits.queries:
        raise invalid(f"{len(queries):,} queries: expected 1 to {limits.queries}.")
    fields = given.get("filter")
    for field in fields if isinstance(fields, dict) else ():
        if len(field) > limits.field_chars or _NO_INDEX.search(field):
            raise invalid(
                f"'{field[:40]}' cannot name a field of a filter: expected at most "
                f"{limits.field_chars} characters, and no place of a list beyond 9 digits."
            )
    if (conditions := _size(fields)) > limits.conditions:
        raise invalid(
            f"A filter of {conditions:,} conditions: expected at most {limits.conditions:,} values "
            "and bounds, of all its fields together."
        )


def _size(condition: object) -> int:
    """How many values and bounds there are in a filter or a part of it."""
    if isinstance(condition, dict):
        return max(1, sum(map(_size, condition.values())))
    return max(1, len(condition)) if isinstance(condition, list) else 1


def _check_size(search: SearchIn, limits: Limits) -> None:
    queries = queries_of(search)
    if not 1 <= len(queries) <= limits.queries:
        raise invalid(f"{len(queries):,} queries: expected 1 to {limits.queries}.")
    if longest := [len(one) for one in queries if len(one) > limits.query_chars]:
        raise invalid(
            f"A query has {longest[0]:,} characters: expected at most {limits.query_chars:,}."
        )
    hits = len(queries) * search.limit
    if search.limit > limits.limit or hits > limits.hits:
        raise invalid(
            f"A limit of {search.limit} for {len(queries)} queries: expected at most "
            f"{limits.limit:,}, and {limits.hits:,} hits of all queries together."
        )
    pairs = len(queries) * (rerank_depth_of(search, limits) or 0)
    if pairs > limits.pairs:
        raise invalid(
            f"{pairs:,} passages to rerank: expected at most {limits.pairs:,}, with fewer queries "
            "or a smaller limit."
        )


def _condition(field: str, given: object) -> Condition:
    match given:
        case NotIn():
            return Not(_condition(field, given.condition))
        case ExistsIn():
            return Exists() if given.exists else Not(Exists())
        case RangeIn():
            bounds = given.model_dump(exclude_none=True)
            return Range(**{name: _bound(field, bound) for name, bound in bounds.items()})
        case _:
            values: Any = given
            return values  # type: ignore[no-any-return]  # a value or several, as it was checked


def _bound(field: str, given: float | str) -> float | date:
    if not isinstance(given, str):
        return given
    for read in (date.fromisoformat, datetime.fromisoformat):
        try:
            return read(given)
        except ValueError:
            continue
    raise invalid(
        f"The range of '{field}' has the bound {given[:40]!r}: expected a number, a date such as "
        "2024-05-01, or a moment such as 2024-05-01T12:30:00+02:00."
    )


def _errors(exc: ValidationError, unknown: str, *prefix: str) -> list[dict[str, object]]:
    """What is wrong, one by one; of a filter's field, which may be of many forms, once."""
    told: dict[str, list[str]] = {}
    for one in exc.errors(include_url=False, include_input=False, include_context=False):
        place = one["loc"][:2] if one["loc"][:1] == ("filter",) else one["loc"]
        where = ".".join([*prefix, *(str(part)[:80] for part in place)])
        reason = unknown if one["type"] == "extra_forbidden" else one["msg"]
        told.setdefault(where, []).append(reason)
    return [
        {"where": where, "reason": reasons[0] if len(reasons) == 1 else _CONDITIONS}
        for where, reasons in [*told.items()][:_ERRORS_TOLD]
    ]
