"""Arguments and results of the tools, as pydantic models: their JSON schemas go to the clients."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.service.http.schemas import MAX_PID_CHARS, MAX_TEXT_CHARS
from msmarco_qdrant.service.http.schemas_filter import FilterField, to_meta_filter

MAX_HITS: Final = 100
"""Most hits of a search: an assistant reads each of them."""
MAX_PASSAGES: Final = 1_000
"""Most passages of a call that reads, writes or deletes some."""

_FILTERS: Final[TypeAdapter[Any]] = TypeAdapter(FilterField)
_FORMS: Final = (
    'must be an object of fields, such as {"lang": ["en", "de"], "year": {"gte": 2001}}, with '
    'values, lists of values, ranges, {"exists": true}, {"text": "two words"}, {"not": ...}, '
    '{"any": [...]} or {"all": [...]}'
)


def to_filter(given: dict[str, Any] | None) -> SearchFilter | None:
    """Return a filter in the package's own form; None for none.

    Raises:
        UsageError: If it is not a filter.
    """
    try:
        return to_meta_filter(_FILTERS.validate_python(given))
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_context=False)[0]
        field = str(error["loc"][1]) if len(error["loc"]) > 1 else ""
        raise UsageError(
            f"filter {_FORMS}; got {str(error['input'])[:80]!r}"
            + (f" for the field {field!r}" if field else "")
        ) from None


# ---- arguments -----------------------------------------------------------------------------

Query: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=2_000, description="A question, a sentence or keywords.")
]
Limit: TypeAlias = Annotated[
    int, Field(ge=1, le=MAX_HITS, description="Most hits to return, the best first.")
]
Mode: TypeAlias = Annotated[
    SearchMode,
    Field(description='"dense" compares meanings, "bm25" words, "hybrid" combines both.'),
]
Filter: TypeAlias = Annotated[
    dict[str, Any] | None,
    Field(
        description="Conditions on fields of meta, all of which hold: "
        '{"lang": ["en", "de"], "year": {"gte": 2001, "lt": 2010}, "title": {"text": "sea music"}, '
        '"tags": {"not": "draft"}, "author.name": {"exists": true}}. '
        'Combine filters by {"$any": [...]}, {"$all": [...]}, {"$not": {...}}.'
    ),
]
Cursor: TypeAlias = Annotated[
    str | None,
    Field(description="The cursor of a result: the next page of the same call."),
]
Pid: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_PID_CHARS)]
Pids: TypeAlias = Annotated[
    list[Pid], Field(min_length=1, max_length=MAX_PASSAGES, description="Ids of passages.")
]
FieldName: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=256, description="A field of meta, such as author.name.")
]


class NewPassage(BaseModel):
    """A passage to add."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(
        min_length=1, max_length=MAX_TEXT_CHARS, description="The text that is encoded and found."
    )
    pid: Pid | None = Field(
        default=None,
        description="Its id: an existing passage of this id is replaced. Without one, the id is "
        "made from the text, so that the same text is stored once.",
    )
    meta: dict[str, Any] = Field(default={}, description="Fields of its own.")


NewPassages: TypeAlias = Annotated[
    list[NewPassage],
    Field(min_length=1, max_length=MAX_PASSAGES, description="The passages to add."),
]


# ---- results -------------------------------------------------------------------------------


class FoundPassage(BaseModel):
    """A hit of a search."""

    rank: int
    pid: str
    score: float
    text: str
    meta: dict[str, Any]
    collection: str | None = Field(
        default=None, description="The collection that has it, if several were searched."
    )


class FoundPassages(BaseModel):
    """The hits, the best first."""

    hits: list[FoundPassage]
    cursor: str | None = Field(default=None, description="Pass it to read the next page.")
    warnings: list[str] = Field(
        default=[], description="Fields of the filter that no passage has, or with other types."
    )


class StoredPassage(BaseModel):
    """A stored passage."""

    pid: str
    text: str
    meta: dict[str, Any]


class StoredPassages(BaseModel):
    """The passages that exist, and the ids that do not."""

    passages: list[StoredPassage]
    missing: list[str]


class PassageCount(BaseModel):
    """The number of passages."""

    count: int
    warnings: list[str] = []


class FieldValue(BaseModel):
    """A value of a field, and the number of passages that have it."""

    value: str | int | bool
    count: int


class FieldValues(BaseModel):
    """The values of a field, the most frequent first."""

    values: list[FieldValue]
    warnings: list[str] = []


class CollectionOut(BaseModel):
    """A collection that can be searched; of others than the server's own, only the name."""

    name: str
    passages: int | None = None
    model: str | None = Field(default=None, description="Its bi-encoder.")
    dimension: int | None = None
    modes: list[SearchMode] = []
    rerank: bool = Field(default=False, description="True if search can rerank.")
    fields: dict[str, PayloadIndex] = Field(
        default={}, description="Fields of meta with an index, each with its kind."
    )


class CollectionsOut(BaseModel):
    """The collections, the server's own first."""

    collections: list[CollectionOut]


class RejectedPassage(BaseModel):
    """A passage that was not stored."""

    position: int = Field(description="Its position in the call, counted from 1.")
    reason: str


class Added(BaseModel):
    """The effect of adding passages; those written are searchable."""

    written: int
    unchanged: int = Field(description="Passages that were stored with the same text and meta.")
    superseded: int = Field(description="Passages that a later one of the same id replaced.")
    pids: list[str] = Field(description="The id of each passage, in the order of the call.")
    waiting: bool = Field(
        default=False, description="True if all are accepted on disk, and are searchable later."
    )
    rejected: list[RejectedPassage] = []


class Deleted(BaseModel):
    """The effect of deleting passages."""

    deleted: int = Field(description="The number of those that existed.")
    waiting: bool = Field(
        default=False, description="True if the call is accepted on disk, and is done later."
    )
