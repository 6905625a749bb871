"""What goes in and out over HTTP, as types: checked on the way in, described in OpenAPI.

A filter has the form that the package's own have (see `msmarco_qdrant.filters`), in JSON::

    {
        "lang": ["en", "de"],                 any one of these
        "year": {"gte": 2001, "lt": 2010},    a range; of moments with strings
        "author.name": {"exists": true},      dots go into objects
        "tags": {"not": "draft"}              of a list, none of its values
    }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from msmarco_qdrant._fields import RowError, checked
from msmarco_qdrant.filters import Condition, Exists, MetaFilter, Not, Range
from msmarco_qdrant.records import Passage
from msmarco_qdrant.search_records import SearchMode
from msmarco_qdrant.service.limits import Limits
from msmarco_qdrant.service.ports import Operation, Write
from msmarco_qdrant.service.problems import ProblemError, invalid

_ERRORS_TOLD: Final = 20
_STRICT: Final = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
_BIGGEST: Final = 2**63


def _fraction(given: object) -> object:
    """An integer that fits no 64 bits would pass as a float, which is another number."""
    if isinstance(given, int):
        raise ValueError("the integer does not fit 64 bits with a sign")  # noqa: TRY004  # pydantic's
    return given


Integer: TypeAlias = Annotated[int, Field(ge=-_BIGGEST, lt=_BIGGEST)]
"""What engines compare with: 64 bits with a sign."""

Fraction: TypeAlias = Annotated[float, BeforeValidator(_fraction)]
Value: TypeAlias = bool | Integer | Fraction | str
Bound: TypeAlias = Integer | Fraction | str


# ---- in ------------------------------------------------------------------------------------


class PassageIn(BaseModel):
    """A passage to put in, or in place of the one of that pid."""

    model_config = _STRICT

    pid: str | Integer = Field(description="Its id; an integer stands for its decimal form.")
    text: str = Field(description="What is encoded and found.")
    meta: dict[str, Any] = Field(default={}, description="Fields of its own, nested 24 deep.")


class RangeIn(BaseModel):
    """The field's number or moment lies between bounds: RFC 3339 strings are moments."""

    model_config = _STRICT

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None


class ExistsIn(BaseModel):
    """The field is there, and is neither null nor empty; or, with false, it is not."""

    model_config = _STRICT

    exists: bool


Plainly: TypeAlias = Value | Annotated[list[Value], Field(min_length=1)] | RangeIn | ExistsIn


class NotIn(BaseModel):
    """The condition does not hold."""

    model_config = ConfigDict(**_STRICT, validate_by_alias=True, validate_by_name=True)

    condition: Plainly = Field(alias="not")


class SearchIn(BaseModel):
    """A search: of one phrase, or of several."""

    model_config = _STRICT

    phrase: str | None = Field(default=None, description="What to search for.")
    phrases: list[str] | None = Field(default=None, description="Or several of them.")
    limit: int = Field(default=10, ge=1, description="Most hits a phrase.")
    mode: SearchMode = Field(default="dense", description="What is compared: vectors, words, both.")
    filter: dict[str, Plainly | NotIn] | None = Field(
        default=None, description="Conditions on fields of `meta`, all of which hold."
    )
    rerank: bool = Field(default=False, description="Score the best with the cross-encoder.")


# ---- out -----------------------------------------------------------------------------------


class Accepted(BaseModel):
    """A batch is on disk and will be searchable, whatever crashes."""

    batch: str = Field(description="Its id, for `GET /batches/{id}`.")
    accepted: int = Field(description="Passages in it.")


class RejectOut(BaseModel):
    """A passage that could not go in."""

    line: int = Field(description="Its place in the batch, counted from 1.")
    reason: str


class BatchOut(BaseModel):
    """How far a batch is; when it is done, all of it is searchable."""

    batch: str
    state: Literal["queued", "working", "done", "failed"]
    written: int = Field(description="Passages encoded and written.")
    unchanged: int = Field(description="Passages that were there already.")
    rejected: int = Field(description="Passages that could not go in.")
    deleted: int = Field(description="Passages that were to be taken out.")
    rejects: list[RejectOut] = Field(description="The first of those rejected.")
    reason: str | None = Field(description="Why it failed.")


class HitOut(BaseModel):
    """One answer to a phrase."""

    rank: int = Field(description="Its place, counted from 1.")
    pid: str
    score: float = Field(description="How well it answers; the mode decides of what kind it is.")
    text: str
    meta: dict[str, Any]


class HitsOut(BaseModel):
    """The answers to a phrase, the best first."""

    hits: list[HitOut]


class ErrorOut(BaseModel):
    """One thing that is wrong with a request."""

    where: str
    reason: str


class ProblemOut(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="A URI that tells the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="What was found, what was expected, the next step.")
    instance: str = Field(description="The request, as the log knows it.")
    errors: list[ErrorOut] = Field(default=[], description="What is wrong, one by one.")
    checks: dict[str, str] = Field(default={}, description="Of /readyz: ok, or what is missing.")


class HealthOut(BaseModel):
    """The process turns."""

    status: Literal["ok"]


class ReadyOut(BaseModel):
    """Everything that it needs is there."""

    status: Literal["ready"]
    checks: dict[str, str]


# ---- checks --------------------------------------------------------------------------------


def passages_of(given: object, limits: Limits) -> list[Operation]:
    """The writes that a parsed body asks for; all of them, or none.

    Raises:
        ProblemError: Naming the first passages that cannot go in.
    """
    if isinstance(given, list) and len(given) > limits.passages:
        raise invalid(
            f"{len(given):,} passages: expected at most {limits.passages:,}, send several batches."
        )
    try:
        found = TypeAdapter(Annotated[list[PassageIn], Field(min_length=1)]).validate_python(given)
    except ValidationError as exc:
        raise _told(exc, "The passages cannot be taken in.") from None
    operations: list[Operation] = []
    errors: list[dict[str, object]] = []
    for place, one in enumerate(found):
        try:
            operations.append(_write(one, limits))
        except RowError as exc:
            errors.append({"where": str(place), "reason": str(exc)})
    if errors:
        raise invalid("The passages cannot be taken in.", errors[:_ERRORS_TOLD])
    return operations


def checked_pid(pid: str, limits: Limits) -> str:
    """The pid of a passage to delete.

    Raises:
        ProblemError: If no passage can have it.
    """
    try:
        return _write(PassageIn(pid=pid, text="any"), limits).pid
    except RowError as exc:
        raise invalid(f"No passage has that pid: {exc}.") from None


def search_of(given: object, limits: Limits) -> SearchIn:
    """The search that a parsed body asks for, within limits.

    Raises:
        ProblemError: If it cannot be served.
    """
    try:
        search = SearchIn.model_validate(given)
    except ValidationError as exc:
        raise _told(exc, "The search cannot be served.") from None
    if (search.phrase is None) == (search.phrases is None):
        raise invalid("Expected either 'phrase', or 'phrases'.")
    _check_size(search, limits)
    return search


def phrases_of(search: SearchIn) -> Sequence[str]:
    """What to search for."""
    return [search.phrase] if search.phrase is not None else search.phrases or []


def rerank_depth_of(search: SearchIn, limits: Limits) -> int | None:
    """How many passages a phrase to rerank, None for none."""
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
    pid = str(given.pid)
    if len(pid) > limits.pid_chars:
        raise RowError(f"the pid has {len(pid):,} characters: expected {limits.pid_chars:,}")
    if len(given.text) > limits.text_chars:
        raise RowError(
            f"the text has {len(given.text):,} characters: expected {limits.text_chars:,} at most"
        )
    passage = checked(Passage(pid, given.text, given.meta))
    return Write(passage.pid, passage.text, passage.meta)


def _check_size(search: SearchIn, limits: Limits) -> None:
    phrases = phrases_of(search)
    if not 1 <= len(phrases) <= limits.phrases:
        raise invalid(f"{len(phrases):,} phrases: expected 1 to {limits.phrases}.")
    if longest := [len(one) for one in phrases if len(one) > limits.phrase_chars]:
        raise invalid(
            f"A phrase has {longest[0]:,} characters: expected at most {limits.phrase_chars:,}."
        )
    hits = len(phrases) * search.limit
    if search.limit > limits.limit or hits > limits.hits:
        raise invalid(
            f"A limit of {search.limit} for {len(phrases)} phrases: expected at most "
            f"{limits.limit:,}, and {limits.hits:,} hits of all phrases together."
        )
    pairs = len(phrases) * (rerank_depth_of(search, limits) or 0)
    if pairs > limits.pairs:
        raise invalid(
            f"{pairs:,} passages to rerank: expected at most {limits.pairs:,}, with fewer phrases "
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


def _told(exc: ValidationError, what: str) -> ProblemError:
    errors = exc.errors(include_url=False, include_input=False, include_context=False)
    return invalid(
        what,
        [
            {"where": ".".join(str(part)[:80] for part in one["loc"]), "reason": one["msg"]}
            for one in errors[:_ERRORS_TOLD]
        ],
    )
