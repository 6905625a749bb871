"""What goes in and out over HTTP, as types, as OpenAPI describes them.

A filter has the form that the package's own have (see `msmarco_qdrant.filters`), in JSON::

    {
        "lang": ["en", "de"],                 any one of these
        "year": {"gte": 2001, "lt": 2010},    a range; of moments with strings
        "author.name": {"exists": true},      dots go into objects
        "tags": {"not": "draft"}              of a list, none of its values
    }
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.service.interfaces import About, Backlog

_STRICT: Final = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
_BIGGEST: Final = 2**63
_SOME_TEXT: Final = r"^[^\x00]*[^\x00\s][^\x00]*$"
_ONE_OR_SEVERAL: Final[Sequence[JsonDict]] = [
    {"required": [one], "properties": {one: {"type": form}, other: {"type": "null"}}}
    for one, form, other in (("query", "string", "queries"), ("queries", "array", "query"))
]


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

    pid: str | Integer = Field(
        description="Its id; an integer stands for its decimal form.",
        json_schema_extra={"pattern": r"^[^\x00]+$"},
    )
    text: str = Field(
        description="What is encoded and found.", json_schema_extra={"pattern": _SOME_TEXT}
    )
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

    model_config = _STRICT

    condition: Plainly = Field(alias="not")


class SearchIn(BaseModel):
    """A search: of one query, or of several."""

    model_config = ConfigDict(**_STRICT, json_schema_extra={"oneOf": [*_ONE_OR_SEVERAL]})

    query: str | None = Field(
        default=None,
        description="What to search for.",
        json_schema_extra={"pattern": _SOME_TEXT},
    )
    queries: list[Annotated[str, Field(json_schema_extra={"pattern": _SOME_TEXT})]] | None = Field(
        default=None, description="Or several of them.", json_schema_extra={"minItems": 1}
    )
    limit: int = Field(default=10, ge=1, description="Most hits a query.")
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
    """How far a batch is; when it is done, all of it that was not rejected is searchable."""

    batch: str
    state: Literal["queued", "working", "done", "failed"]
    written: int = Field(description="Passages encoded and written.")
    unchanged: int = Field(description="Passages that were there already.")
    rejected: int = Field(description="Passages that could not go in.")
    deleted: int = Field(description="Passages that were there and have been taken out.")
    superseded: int = Field(description="Rows that a later row of the same pid made void.")
    rejects: list[RejectOut] = Field(description="The first of those rejected.")
    reason: str | None = Field(description="Why it failed.")


class HitOut(BaseModel):
    """One answer to a query."""

    rank: int = Field(description="Its place, counted from 1.")
    pid: str
    score: float = Field(description="How well it answers; the mode decides of what kind it is.")
    text: str
    meta: dict[str, Any]


class HitsOut(BaseModel):
    """The answers to a query, the best first."""

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
    batch: str = Field(default="", description="Of a batch that has failed: its id.")


class HealthOut(BaseModel):
    """The process turns."""

    status: Literal["ok"]


class ReadyOut(BaseModel):
    """Everything that it needs is there."""

    status: Literal["ready"]
    checks: dict[str, str]


class ModelOut(BaseModel):
    """A bi-encoder."""

    name: str
    dimension: int = Field(description="The length of its vectors.")


class SpoolOut(BaseModel):
    """What waits to be written."""

    batches: int = Field(description="Batches, the one in hand included.")
    oldest_s: float = Field(description="Seconds since the oldest of them was accepted.")


class StatusOut(BaseModel):
    """What is searched, how it can be, and what is still to be written."""

    version: str = Field(description="The sidecar's.")
    collection: str | None = Field(description="Its name; null while the model is being loaded.")
    model: ModelOut | None = Field(description="Null while it is being loaded.")
    passages: int | None = Field(description="How many there are; null if that is not known.")
    modes: list[SearchMode] = Field(description="What a search can compare.")
    rerank: bool = Field(description="Whether a search can score the best again.")
    spool: SpoolOut


def status_of(about: About | None, backlog: Backlog, version: str) -> StatusOut:
    """What the sidecar says of itself; `about` is None while the model is being loaded."""
    return StatusOut(
        version=version,
        collection=about.collection if about else None,
        model=ModelOut(name=about.model, dimension=about.dimension) if about else None,
        passages=about.passages if about else None,
        modes=list(about.modes) if about else [],
        rerank=about.rerank if about else False,
        spool=SpoolOut(batches=backlog.batches, oldest_s=round(backlog.oldest_s, 1)),
    )
