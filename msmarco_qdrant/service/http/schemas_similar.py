"""Searches by examples, as a pydantic model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Self, TypeAlias, cast

from pydantic import ConfigDict, Field, model_validator

from msmarco_qdrant.core.example import Example
from msmarco_qdrant.search.options import SimilarOptions
from msmarco_qdrant.service.http.schemas import SOME_TEXT, Pid, RequestModel, TenantField
from msmarco_qdrant.service.http.schemas_fields import (
    CollectionsField,
    CursorField,
    DiversityField,
    EfField,
    ExactField,
    GroupByField,
    MergeField,
    MetaField,
    OversamplingField,
    RescoreField,
    TextField,
    ThresholdField,
    VectorsField,
)
from msmarco_qdrant.service.http.schemas_filter import FilterField, to_meta_filter
from msmarco_qdrant.service.http.schemas_search import MAX_HITS, MAX_LIMIT

MAX_EXAMPLES: Final = 100  # in each list
MAX_EXAMPLE_CHARS: Final = 10_000
MAX_DIMENSION: Final = 65_536
_EXAMPLES: Final = frozenset({"pid", "text", "vector", "positive", "negative", "filter"})

Text: TypeAlias = Annotated[str, Field(max_length=MAX_EXAMPLE_CHARS, json_schema_extra=SOME_TEXT)]
Vector: TypeAlias = Annotated[list[float], Field(min_length=1, max_length=MAX_DIMENSION)]


class ExampleIn(RequestModel):
    """An example: a passage, a text or a vector."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    pid: Pid | None = None
    text: Text | None = None
    vector: Vector | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(value is not None for value in (self.pid, self.text, self.vector)) != 1:
            raise ValueError("must have exactly one of 'pid', 'text' and 'vector'")
        return self


Examples: TypeAlias = Annotated[list[Pid | ExampleIn], Field(max_length=MAX_EXAMPLES)]


class SimilarIn(RequestModel):
    """A search by examples: for passages like some, and less like others."""

    pid: Pid | None = Field(default=None, description="A passage of the collection.")
    text: Text | None = Field(default=None, description="A text.")
    vector: Vector | None = Field(default=None, description="A vector of the collection's model.")
    positive: Examples = Field(default=[], description="More examples: pids or objects.")
    negative: Examples = Field(default=[], description="Examples that hits are to differ from.")
    limit: int = Field(default=10, ge=1, le=MAX_LIMIT, description="Most hits.")
    offset: int = Field(default=0, ge=0, le=MAX_HITS, description="Best hits to skip.")
    cursor: CursorField = None
    score_threshold: ThresholdField = None
    filter: FilterField = None
    tenant: TenantField = None
    group_by: GroupByField = None
    diversity: DiversityField = None
    exact: ExactField = False
    ef: EfField = None
    oversampling: OversamplingField = None
    rescore: RescoreField = True
    with_vectors: VectorsField = False
    with_meta: MetaField = True
    with_text: TextField = True
    collections: CollectionsField = None
    merge: MergeField = "scores"

    @model_validator(mode="after")
    def _check_work(self) -> Self:
        count = len(self.collections or [None])
        if (hits := (self.offset + self.limit) * count) > MAX_HITS:
            raise ValueError(
                f"offset and limit together times collections must be at most {MAX_HITS:,}, got "
                f"{hits:,}: ask for fewer"
            )
        return self

    @property
    def examples(self) -> Sequence[Example]:
        """The positive examples."""
        own = [
            Example(**{name: value if name != "pid" else str(value)})
            for name in ("pid", "text", "vector")
            if (value := getattr(self, name)) is not None
        ]
        return [*own, *map(_to_example, self.positive)]

    @property
    def counterexamples(self) -> Sequence[Example]:
        """The negative examples."""
        return [*map(_to_example, self.negative)]

    @property
    def options(self) -> SimilarOptions:
        """The options of the client: those that the request has, so that defaults are its own."""
        given = {
            name: value
            for name in self.model_fields_set - _EXAMPLES
            if (value := getattr(self, name)) is not None
        }
        meta_filter = to_meta_filter(self.filter)
        given |= {} if meta_filter is None else {"meta_filter": meta_filter}
        return cast("SimilarOptions", given)


def _to_example(given: str | int | ExampleIn) -> Example:
    if not isinstance(given, ExampleIn):
        return Example(pid=str(given))
    pid = None if given.pid is None else str(given.pid)
    return Example(pid=pid, text=given.text, vector=given.vector)
