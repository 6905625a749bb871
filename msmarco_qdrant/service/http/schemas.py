"""Passages and responses as pydantic models, as OpenAPI describes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import to_json

from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Facet, Hit, SearchMode
from msmarco_qdrant.service.interfaces import Backlog, RowReject
from msmarco_qdrant.sources.rows import check_passage

MAX_PASSAGES: Final = 10_000  # per batch
MAX_PID_CHARS: Final = 1_024
MAX_TEXT_CHARS: Final = 100_000
MAX_META_BYTES: Final = 2**18  # as JSON: with text and pid it fits into a spool line of 1 MiB
_BIGGEST: Final = 2**63
SOME_TEXT: Final[JsonDict] = {"pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"}
Integer: TypeAlias = Annotated[int, Field(ge=-_BIGGEST, lt=_BIGGEST)]
"""An integer that engines compare with: 64 bits with a sign."""


def _check_pid(pid: str) -> str:
    if not pid or "\0" in pid:
        raise ValueError("a pid must be one or more characters without NUL")
    return pid


Pid: TypeAlias = (
    Annotated[
        str,
        Field(max_length=MAX_PID_CHARS, json_schema_extra={"pattern": r"^[^\x00]+$"}),
        AfterValidator(_check_pid),
    ]
    | Integer
)
"""A pid; an integer means its decimal form."""

TenantField: TypeAlias = Annotated[
    Annotated[str, Field(min_length=1, max_length=256)] | None,
    Field(description="Only this tenant's passages, for a collection with a tenant field."),
]
"""The field `tenant` of a request."""


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

    pid: Pid = Field(description="Its id; an integer means its decimal form.")
    text: str = Field(
        max_length=MAX_TEXT_CHARS,
        description="The text that is encoded and found.",
        json_schema_extra=SOME_TEXT,
    )
    meta: dict[str, Any] = Field(default={}, description="Fields of its own, nested 24 deep.")

    @model_validator(mode="after")
    def _check_row(self) -> Self:
        """Refuse what a file's row may not hold either."""
        check_passage(Passage(str(self.pid), self.text, self.meta))
        if self.meta and (size := len(to_json(self.meta))) > MAX_META_BYTES:
            raise ValueError(f"meta must have at most {MAX_META_BYTES:,} bytes, got {size:,}")
        return self


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


class BatchLine(BaseModel):
    """A batch in the list of batches."""

    batch: str
    source: str = Field(
        description='"http", or the name of the inbox\'s file; its form, such as "tsv", if the '
        "sidecar was restarted before it ended."
    )
    state: Literal["queued", "working", "done", "failed"]
    accepted_at: datetime
    ended_at: datetime | None
    written: int
    unchanged: int
    rejected: int
    deleted: int
    superseded: int
    reason: str | None = Field(description="The reason of a failed batch.")


class BatchesOut(BaseModel):
    """The newest batches: those that have not ended, then those that ended last."""

    batches: list[BatchLine]


class FacetsOut(BaseModel):
    """The values of a field, the most frequent first."""

    facets: list[Facet]
    warnings: list[str] = Field(
        default=[], description="Fields that no passage has, or with other types."
    )


class PageOut(BaseModel):
    """A page of passages."""

    passages: list[PassageOut]
    next: str | None = Field(description="`after` of the next page, null at the end.")
    warnings: list[str] = Field(
        default=[], description="Fields of the filter that no passage has, or with other types."
    )


class HitsOut(BaseModel):
    """The answers to a query, the best first."""

    hits: list[Hit]
    cursor: str | None = Field(
        default=None, description="`cursor` of the next page, missing at the end."
    )
    warnings: list[str] = Field(
        default=[], description="Fields of the filter that no passage has, or with other types."
    )


class PassageOut(BaseModel):
    """A stored passage."""

    pid: str
    text: str
    meta: dict[str, Any]


class CountOut(BaseModel):
    """The number of passages."""

    count: int
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
    fields: dict[str, PayloadIndex] = Field(
        default={}, description="Fields of `meta` with a payload index, each with its kind."
    )
    tenant_field: str | None = Field(
        default=None, description="The field of the tenants, one of which each request must name."
    )
    spool: Backlog
