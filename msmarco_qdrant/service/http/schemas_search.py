"""Requests that search, as pydantic models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Self, TypeAlias, cast

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from msmarco_qdrant.core.search_types import Fusion, FusionMethod, SearchMode
from msmarco_qdrant.search.options import (
    RERANK_DEPTH,
    RankOptions,
    RerankDepth,
    SearchOptions,
)
from msmarco_qdrant.search.request import CONVEX, MAX_SNIPPETS
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
    MetaName,
    OversamplingField,
    RescoreField,
    TextField,
    ThresholdField,
    VectorsField,
)
from msmarco_qdrant.service.http.schemas_filter import FilterField, to_meta_filter

MAX_QUERIES: Final = 64
MAX_QUERY_CHARS: Final = 2_000
MAX_LIMIT: Final = 1_000  # hits per query
MAX_HITS: Final = 10_000  # of all queries of a search together
MAX_SNIPPET_HITS: Final = 100  # hits of a search whose sentences are encoded
MAX_PAIRS: Final = 2_000  # pairs of query and passage that the cross-encoder scores in one search
_ONE_OR_SEVERAL: Final[Sequence[JsonDict]] = [
    {"required": [one], "properties": {one: {"type": form}, other: {"type": "null"}}}
    for one, form, other in (("query", "string", "queries"), ("queries", "array", "query"))
]

_OWN: Final = frozenset({"query", "queries", "filter", "rerank", "rerank_depth"})

Query: TypeAlias = Annotated[str, Field(max_length=MAX_QUERY_CHARS, json_schema_extra=SOME_TEXT)]


class FusionIn(RequestModel):
    """The way in which "hybrid" combines both rankings."""

    method: FusionMethod = "convex"
    dense_weight: float | None = Field(default=None, ge=0, le=1)
    depth: int = Field(default=CONVEX.depth, ge=1, le=10_000)
    k: int = Field(default=CONVEX.k, ge=1, le=1_000_000)


FusionForm: TypeAlias = (
    FusionMethod | Annotated[FusionIn, AfterValidator(lambda given: Fusion(**dict(given)))]
)
FusionField: TypeAlias = Annotated[
    FusionForm | None, Field(description='How "hybrid" combines both rankings.')
]
ModeField: TypeAlias = Annotated[SearchMode, Field(description="Compare vectors, words, or both.")]


class SearchIn(RequestModel):
    """A search: of one query, or of several. What it leaves out is as in `SearchClient.search`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [*_ONE_OR_SEVERAL]})

    query: Query | None = Field(default=None, description="The query, or else:")
    queries: Annotated[list[Query], Field(min_length=1, max_length=MAX_QUERIES)] | None = Field(
        default=None, description="Several queries."
    )
    limit: int = Field(default=10, ge=1, le=MAX_LIMIT, description="Most hits per query.")
    offset: int = Field(
        default=0, ge=0, le=MAX_HITS, description="Best hits to skip; with `limit` at most 10,000."
    )
    cursor: CursorField = None
    mode: ModeField = "dense"
    fusion: FusionField = None
    score_threshold: ThresholdField = None
    rerank: bool = Field(
        default=False,
        description="Score the best with the cross-encoder: 100, or the collection's number.",
    )
    rerank_depth: int | None = Field(
        default=None,
        ge=1,
        le=MAX_PAIRS,
        description="Score so many of the best with the cross-encoder; at least `limit`.",
    )
    rerank_sigmoid: bool = Field(
        default=False, description="Scores of the cross-encoder as 0 to 1."
    )
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
    snippets: int = Field(
        default=0,
        ge=0,
        le=MAX_SNIPPETS,
        description="Most sentences per hit to return, those most similar to the query.",
    )
    collections: CollectionsField = None
    merge: MergeField = "scores"

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.query is None) == (self.queries is None):
            raise ValueError("must have either 'query' or 'queries'")
        queries = len(self.texts)
        if (hits := queries * self.limit) > MAX_HITS:
            raise ValueError(
                f"limit times queries must be at most {MAX_HITS:,}, got {hits:,}: send fewer"
            )
        self._check_work(queries)
        if self.snippets and hits > MAX_SNIPPET_HITS:
            raise ValueError(
                f"limit times queries must be at most {MAX_SNIPPET_HITS} with snippets, "
                f"got {hits:,}"
            )
        end = self.offset + self.limit
        if self.rerank_depth is not None and self.rerank_depth < end:
            rule = f"limit ({end})" if not self.offset else f"offset and limit together ({end})"
            raise ValueError(
                f"rerank_depth must be {rule} or more, to score every hit, got {self.rerank_depth}"
            )
        self.check_pairs(RERANK_DEPTH)
        return self

    def _check_work(self, queries: int) -> None:
        """Check what is retrieved for all queries together, of which an answer shows a part."""
        depth = self.fusion.depth if isinstance(self.fusion, Fusion) else 0
        found = {"offset and limit together": self.offset + self.limit, "fusion.depth": depth}
        factor, words = queries, "queries"
        if self.collections is not None:
            factor, words = queries * len(self.collections), "queries and collections"
        for name, each in found.items():
            if factor * each > MAX_HITS:
                raise ValueError(
                    f"{name} times {words} must be at most {MAX_HITS:,}, got {factor * each:,}: "
                    f"send fewer {words}"
                )

    def check_pairs(self, auto: int) -> None:
        """Check the number of passages to rerank.

        Args:
            auto: The number per query that `rerank` alone means.

        Raises:
            ValueError: If there are too many.
        """
        depth = self.rerank_depth or (max(self.offset + self.limit, auto) if self.rerank else 0)
        if (pairs := len(self.texts) * depth) > MAX_PAIRS:
            raise ValueError(
                f"a search must rerank at most {MAX_PAIRS:,} passages, got {pairs:,}: send fewer "
                "queries or a smaller limit"
            )

    @property
    def texts(self) -> Sequence[str]:
        """The queries."""
        return [self.query] if self.query is not None else self.queries or []

    @property
    def depth(self) -> RerankDepth:
        """Passages to rerank per query, None for no reranking."""
        return self.rerank_depth or ("auto" if self.rerank else None)

    @property
    def options(self) -> SearchOptions:
        """The options of the client: those that the request has, so that defaults are its own."""
        given = {
            name: value
            for name in self.model_fields_set - _OWN
            if (value := getattr(self, name)) is not None
        }
        more = {"rerank_depth": self.depth, "meta_filter": to_meta_filter(self.filter)}
        given |= {name: value for name, value in more.items() if value is not None}
        return cast("SearchOptions", given)


class RankIn(RequestModel):
    """A ranking of given passages."""

    query: Query
    pids: list[Pid] = Field(max_length=MAX_LIMIT, description="The passages.")
    mode: ModeField = "dense"
    fusion: FusionField = None
    tenant: TenantField = None
    rerank: bool = Field(default=False, description="Score all of them with the cross-encoder.")
    rerank_sigmoid: bool = Field(
        default=False, description="Scores of the cross-encoder as 0 to 1."
    )
    collections: CollectionsField = None
    merge: MergeField = "scores"

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.rerank_sigmoid and not self.rerank:
            raise ValueError("rerank_sigmoid converts reranked scores: needs 'rerank'")
        most = MAX_PAIRS if self.rerank else MAX_HITS
        found = len(self.pids) * len(self.collections or ("",))
        if found > most:
            raise ValueError(
                f"pids times collections must be at most {most:,}, got {found:,}: send fewer"
            )
        return self

    @property
    def options(self) -> RankOptions:
        """The options of the client, without defaults."""
        names = RankOptions.__annotations__
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return cast("RankOptions", given)


class CountIn(RequestModel):
    """A count of passages."""

    filter: FilterField = None
    tenant: TenantField = None
    exact: bool = Field(default=True, description="False for a fast estimate.")


class ScrollIn(RequestModel):
    """A page of all passages, or of those that a filter matches."""

    limit: int = Field(default=100, ge=1, le=MAX_LIMIT, description="Most passages.")
    filter: FilterField = None
    tenant: TenantField = None
    order_by: MetaName | None = Field(
        default=None,
        description="A field of numbers or moments with a payload index, or `-field` for the "
        "highest first; null for the order of ids.",
    )
    after: Pid | None = Field(default=None, description="`next` of the page before.")


class FacetsIn(RequestModel):
    """A count of the passages of each value of a field."""

    field: MetaName = Field(description="A field of `meta`.")
    limit: int = Field(default=10, ge=1, le=MAX_LIMIT, description="Most values.")
    filter: FilterField = None
    tenant: TenantField = None
    exact: bool = Field(default=True, description="False for a fast estimate.")


SEARCHES: Final = (SearchIn, RankIn, CountIn, FacetsIn, ScrollIn)
"""The bodies that a route parses itself."""
