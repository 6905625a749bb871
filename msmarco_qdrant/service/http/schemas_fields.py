"""Fields that requests of searches have in common."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from pydantic import Field

from msmarco_qdrant.core.search_types import Merge
from msmarco_qdrant.search.request import MAX_COLLECTIONS
from msmarco_qdrant.service.http.schemas_filter import MAX_FIELD_CHARS

MAX_CURSOR_CHARS: Final = 10_000
MAX_META_NAMES: Final = 100
MAX_NAME_CHARS: Final = 255  # of a collection

MetaName: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_FIELD_CHARS)]
"""The name of a field of `meta`."""

CursorField: TypeAlias = Annotated[
    Annotated[str, Field(max_length=MAX_CURSOR_CHARS)] | None,
    Field(description="The cursor of the page before, of the same search."),
]
ThresholdField: TypeAlias = Annotated[
    float | None, Field(description="Leave out hits with a lower score.")
]
GroupByField: TypeAlias = Annotated[
    MetaName | None,
    Field(description="A field of `meta`: the best passage for each of its values."),
]
DiversityField: TypeAlias = Annotated[
    Annotated[float, Field(ge=0, le=1)] | None,
    Field(description="Reorder the best 100 hits so that each differs from those before it."),
]
ExactField: TypeAlias = Annotated[bool, Field(description="Compare with every vector.")]
EfField: TypeAlias = Annotated[
    Annotated[int, Field(ge=1, le=10_000)] | None, Field(description="Candidates in the graph.")
]
OversamplingField: TypeAlias = Annotated[
    Annotated[float, Field(ge=1, le=1_000)] | None,
    Field(description="Of quantized vectors, the factor to score again."),
]
RescoreField: TypeAlias = Annotated[bool, Field(description="Score quantized results again.")]
VectorsField: TypeAlias = Annotated[bool, Field(description="Return the vector of each hit.")]
MetaField: TypeAlias = Annotated[
    bool | Annotated[list[MetaName], Field(max_length=MAX_META_NAMES)],
    Field(description="False for an empty `meta`, or the names of its fields."),
]
TextField: TypeAlias = Annotated[bool, Field(description="False for an empty text.")]
CollectionName: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]
CollectionsField: TypeAlias = Annotated[
    Annotated[list[CollectionName], Field(min_length=1, max_length=MAX_COLLECTIONS)] | None,
    Field(
        description="One ranking of the passages of these collections, which the sidecar permits."
    ),
]
MergeField: TypeAlias = Annotated[
    Merge, Field(description="How their rankings become one: by scores, or by ranks.")
]
