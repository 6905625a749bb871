"""Request and response bodies as pydantic models, as OpenAPI describes them.

A filter has the form of `msmarco_qdrant.filters`, in JSON::

    {
        "lang": ["en", "de"],                 any one of these
        "year": {"gte": 2001, "lt": 2010},    a range; of moments with strings
        "author.name": {"exists": true},      dots go into objects, also those of a list
        "tags": {"not": "draft"}              of a list, none of its values
    }
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import to_json

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Hit, SearchMode
from msmarco_qdrant.filters import Exists, MetaFilter, Not, Range
from msmarco_qdrant.service.interfaces import Backlog, RowReject
from msmarco_qdrant.sources.rows import check_passage

MAX_PASSAGES: Final = 10_000  # per batch
MAX_PID_CHARS: Final = 1_024
MAX_TEXT_CHARS: Final = 100_000
MAX_META_BYTES: Final = 2**18  # as JSON: with text and pid it fits into a spool line of 1 MiB
MAX_QUERIES: Final = 64
MAX_QUERY_CHARS: Final = 2_000
MAX_LIMIT: Final = 1_000  # hits per query
MAX_HITS: Final = 10_000  # of all queries of a search together
MAX_CONDITIONS: Final = 1_000  # values and bounds of a filter, of all its fields together
MAX_FIELD_CHARS: Final = 256  # of the name of a filter's field
MAX_PAIRS: Final = 2_000  # pairs of query and passage that the cross-encoder scores in one search
_RERANK_DEPTH: Final = 100
_BIGGEST: Final = 2**63
_SOME_TEXT: Final[JsonDict] = {"pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"}
_LONG_INDEX: Final = re.compile(r"\[[0-9]{10,}")  # no engine counts list items that far
_ONE_OR_SEVERAL: Final[Sequence[JsonDict]] = [
    {"required": [one], "properties": {one: {"type": form}, other: {"type": "null"}}}
    for one, form, other in (("query", "string", "queries"), ("queries", "array", "query"))
]


def _refuse_integer(given: object) -> object:
    """Refuse an integer of more than 64 bits: as a float it would be another number."""
    if isinstance(given, int):
        raise ValueError("an integer must fit into 64 bits with a sign")  # noqa: TRY004  # pydantic's
    return given


def _parse_moment(given: object) -> date:
    for parse in (date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError, TypeError):  # a TypeError for what is not a string
            return parse(given)  # type: ignore[arg-type]
    raise ValueError("a bound must be a number, a date or a moment")


def _check_field(name: str) -> str:
    if _LONG_INDEX.search(name):
        raise ValueError("an index of a list must have at most 9 digits")
    return name


Integer: TypeAlias = Annotated[int, Field(ge=-_BIGGEST, lt=_BIGGEST)]
"""An integer that engines compare with: 64 bits with a sign."""

Fraction: TypeAlias = Annotated[float, BeforeValidator(_refuse_integer)]
Value: TypeAlias = bool | Integer | Fraction | str
Bound: TypeAlias = (
    Integer | Fraction | Annotated[date, PlainValidator(_parse_moment, json_schema_input_type=str)]
)
FieldName: TypeAlias = Annotated[
    str, Field(max_length=MAX_FIELD_CHARS), AfterValidator(_check_field)
]
Query: TypeAlias = Annotated[str, Field(max_length=MAX_QUERY_CHARS, json_schema_extra=_SOME_TEXT)]


# ---- requests ------------------------------------------------------------------------------


class RequestModel(BaseModel):
    """A part of a request: of exact types, without unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, given: Any) -> Any:
        """Refuse many fields at once: each unknown one would be an error of its own."""
        most = len(cls.model_fields)
        if isinstance(given, dict) and len(given) > most:
            names = ", ".join(cls.model_fields)
            raise ValueError(f"must have at most {most} fields ({names}), got {len(given):,}")
        return given


class PassageIn(RequestModel):
    """A passage to write; it replaces the one of the same pid."""

    pid: Annotated[str, Field(max_length=MAX_PID_CHARS)] | Integer = Field(
        description="Its id; an integer means its decimal form.",
        json_schema_extra={"pattern": r"^[^\x00]+$"},
    )
    text: str = Field(
        max_length=MAX_TEXT_CHARS,
        description="The text that is encoded and found.",
        json_schema_extra=_SOME_TEXT,
    )
    meta: dict[str, Any] = Field(default={}, description="Fields of its own, nested 24 deep.")

    @model_validator(mode="after")
    def _check_row(self) -> Self:
        """Refuse what a file's row may not hold either."""
        check_passage(Passage(str(self.pid), self.text, self.meta))
        if self.meta and (size := len(to_json(self.meta))) > MAX_META_BYTES:
            raise ValueError(f"meta must have at most {MAX_META_BYTES:,} bytes, got {size:,}")
        return self


class RangeIn(RequestModel):
    """The field's number or moment lies between bounds: RFC 3339 strings are moments."""

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None


class ExistsIn(RequestModel):
    """The field exists and is neither null nor empty; with false, it does not."""

    exists: bool


PositiveCondition: TypeAlias = (
    Value
    | Annotated[list[Value], Field(min_length=1)]
    | Annotated[RangeIn, AfterValidator(lambda given: Range(**dict(given)))]
    | Annotated[ExistsIn, AfterValidator(lambda given: Exists() if given.exists else Not(Exists()))]
)


class NotIn(RequestModel):
    """The condition does not hold."""

    condition: PositiveCondition = Field(alias="not")


AnyCondition: TypeAlias = (
    PositiveCondition | Annotated[NotIn, AfterValidator(lambda given: Not(given.condition))]
)


class SearchIn(RequestModel):
    """A search: of one query, or of several."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [*_ONE_OR_SEVERAL]})

    query: Query | None = Field(default=None, description="The query, or else:")
    queries: Annotated[list[Query], Field(min_length=1, max_length=MAX_QUERIES)] | None = Field(
        default=None, description="Several queries."
    )
    limit: int = Field(default=10, ge=1, le=MAX_LIMIT, description="Most hits per query.")
    mode: SearchMode = Field(default="dense", description="Compare vectors, words, or both.")
    filter: dict[FieldName, AnyCondition] | None = Field(
        default=None, description="Conditions on fields of `meta`, all of which hold."
    )
    rerank: bool = Field(default=False, description="Score the best with the cross-encoder.")

    @field_validator("filter", mode="before")
    @classmethod
    def _limit_conditions(cls, given: object) -> object:
        """Refuse many conditions at once: each would be checked against every form."""
        if (count := _count_conditions(given)) > MAX_CONDITIONS:
            raise ValueError(
                f"must have at most {MAX_CONDITIONS:,} values and bounds, got {count:,}"
            )
        return given

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.query is None) == (self.queries is None):
            raise ValueError("must have either 'query' or 'queries'")
        queries = len(self.texts)
        if (hits := queries * self.limit) > MAX_HITS:
            raise ValueError(
                f"limit times queries must be at most {MAX_HITS:,}, got {hits:,}: send fewer"
            )
        if (pairs := queries * (self.rerank_depth or 0)) > MAX_PAIRS:
            raise ValueError(
                f"a search must rerank at most {MAX_PAIRS:,} passages, got {pairs:,}: send fewer "
                "queries or a smaller limit"
            )
        return self

    @property
    def texts(self) -> Sequence[str]:
        """The queries."""
        return [self.query] if self.query is not None else self.queries or []

    @property
    def meta_filter(self) -> MetaFilter | None:
        """The filter in the package's own form, which validation made; None for none."""
        return cast("MetaFilter", self.filter) or None

    @property
    def rerank_depth(self) -> int | None:
        """Passages to rerank per query, None for no reranking."""
        return max(self.limit, _RERANK_DEPTH) if self.rerank else None


def _count_conditions(condition: object) -> int:
    """Count values and bounds in a filter or a part of it."""
    if isinstance(condition, dict):
        return max(1, sum(map(_count_conditions, condition.values())))
    return max(1, len(condition)) if isinstance(condition, list) else 1


# ---- responses -----------------------------------------------------------------------------


class Accepted(BaseModel):
    """A batch is on disk and becomes searchable, even after a crash."""

    batch: str = Field(description="Its id, for `GET /batches/{id}`.")
    accepted: int = Field(description="Passages in it.")


class BatchOut(BaseModel):
    """The state of a batch; when it is done, all of it that was not rejected is searchable."""

    batch: str
    state: Literal["queued", "working", "done", "failed"]
    written: int = Field(description="Passages encoded and written.")
    unchanged: int = Field(description="Passages that were stored already.")
    rejected: int = Field(description="Passages that could not be written.")
    deleted: int = Field(description="Passages that were stored and are deleted.")
    superseded: int = Field(description="Rows that a later row of the same pid replaced.")
    rejects: list[RowReject] = Field(description="The first of those rejected.")
    reason: str | None = Field(description="The reason of a failed batch.")


class HitsOut(BaseModel):
    """The answers to a query, the best first."""

    hits: list[Hit]
    warnings: list[str] = Field(
        default=[], description="Fields of the filter that no passage has, or with other types."
    )


class ErrorOut(BaseModel):
    """One error of a request."""

    where: str
    reason: str


class ProblemOut(BaseModel):
    """The reason of a refusal (RFC 9457)."""

    type: str = Field(description="A URI that names the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="The rule, the value, and the next step.")
    instance: str = Field(description="The request's id in the log.")
    errors: list[ErrorOut] = Field(default=[], description="Each error of the request.")
    checks: dict[str, str] = Field(default={}, description="Of /readyz: ok, or what is missing.")
    batch: str = Field(default="", description="Of a batch that failed: its id.")


class HealthOut(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"


class ReadyOut(BaseModel):
    """Every check passed."""

    status: Literal["ready"] = "ready"
    checks: dict[str, str]


class ModelOut(BaseModel):
    """A bi-encoder."""

    name: str
    dimension: int = Field(description="The length of its vectors.")


class StatusOut(BaseModel):
    """The collection, its search modes, and the batches that wait."""

    version: str = Field(description="The sidecar's version.")
    collection: str | None = Field(default=None, description="Null while the model loads.")
    model: ModelOut | None = Field(default=None, description="Null while it loads.")
    passages: int | None = Field(default=None, description="Null if the number is not known.")
    modes: list[SearchMode] = Field(default=[], description="The search modes.")
    rerank: bool = Field(default=False, description="True if a search can rerank.")
    spool: Backlog
