"""Requests that search, as pydantic models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.filters import MetaFilter
from msmarco_qdrant.service.http.schemas import SOME_TEXT, RequestModel
from msmarco_qdrant.service.http.schemas_filter import FilterIn, filter_field, to_meta_filter

MAX_QUERIES: Final = 64
MAX_QUERY_CHARS: Final = 2_000
MAX_LIMIT: Final = 1_000  # hits per query
MAX_HITS: Final = 10_000  # of all queries of a search together
MAX_PAIRS: Final = 2_000  # pairs of query and passage that the cross-encoder scores in one search
_RERANK_DEPTH: Final = 100
_ONE_OR_SEVERAL: Final[Sequence[JsonDict]] = [
    {"required": [one], "properties": {one: {"type": form}, other: {"type": "null"}}}
    for one, form, other in (("query", "string", "queries"), ("queries", "array", "query"))
]

Query: TypeAlias = Annotated[str, Field(max_length=MAX_QUERY_CHARS, json_schema_extra=SOME_TEXT)]


class SearchIn(RequestModel):
    """A search: of one query, or of several."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [*_ONE_OR_SEVERAL]})

    query: Query | None = Field(default=None, description="The query, or else:")
    queries: Annotated[list[Query], Field(min_length=1, max_length=MAX_QUERIES)] | None = Field(
        default=None, description="Several queries."
    )
    limit: int = Field(default=10, ge=1, le=MAX_LIMIT, description="Most hits per query.")
    mode: SearchMode = Field(default="dense", description="Compare vectors, words, or both.")
    filter: FilterIn = filter_field()
    rerank: bool = Field(default=False, description="Score the best with the cross-encoder.")

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
        """The filter in the package's own form; None for none."""
        return to_meta_filter(self.filter)

    @property
    def rerank_depth(self) -> int | None:
        """Passages to rerank per query, None for no reranking."""
        return max(self.limit, _RERANK_DEPTH) if self.rerank else None
