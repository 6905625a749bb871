"""Single steps of a search, which the drivers of both clients execute."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint
from msmarco_qdrant.encoding import Encoder

if TYPE_CHECKING:
    from msmarco_qdrant.search.session import SearchSession
    from msmarco_qdrant.search.steps import Searcher

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Encode:
    """Encode these queries with this encoder; returns float32 `(n, dimension)`."""

    encoder: Encoder
    queries: Sequence[str]


@dataclass(frozen=True, slots=True)
class EncodePassages:
    """Encode these texts as passages; returns float32 `(n, dimension)`."""

    encoder: Encoder
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Query:
    """Query the collection; returns a list of `ScoredPoint` for each of these."""

    queries: Sequence[PointQuery]


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Read points; returns the payload fields of a hit by id, for the ids that exist."""

    ids: Sequence[PointId]


@dataclass(frozen=True, slots=True)
class Score:
    """Score pairs of query and passage with the cross-encoder; returns float32 `(n,)`."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class GetPayloadIndexes:
    """Read the collection's payload indexes; returns their kinds by field."""


@dataclass(frozen=True, slots=True)
class CountPoints:
    """Count the collection's points; returns their number."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """Read the collection's metadata; returns a new searcher, or `used` if they are the same.

    Attributes:
        used: The searcher so far.
        loads_model: False for a search by words alone: if the model was changed, it returns a
            searcher without an encoder, for this search only.
    """

    used: Searcher
    loads_model: bool = True


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open another collection of the store, of the same model; returns its session."""

    name: str


@dataclass(frozen=True, slots=True)
class GetAliases:
    """Read the aliases of the store; returns the physical collection of each."""


@dataclass(frozen=True, slots=True)
class Together:
    """Execute steps of several sessions, at once if the driver can; returns a list of results."""

    parts: Sequence[tuple[SearchSession, Step]]


Step: TypeAlias = (
    Encode
    | EncodePassages
    | Query
    | Retrieve
    | Score
    | GetPayloadIndexes
    | CountPoints
    | Refresh
    | OpenSession
    | GetAliases
    | Together
)
Steps: TypeAlias = Generator[Step, Any, _T]


def with_query(steps: Steps[_T], query: PointQuery) -> Steps[tuple[_T, Sequence[ScoredPoint]]]:
    """Send one more query with the first ones of steps; return their result, and its answer."""
    answer: Sequence[ScoredPoint] | None = None
    try:
        step = next(steps)
        while True:
            if answer is None and isinstance(step, Query):
                *result, answer = yield Query([*step.queries, query])
            else:
                result = yield step
            step = steps.send(result)
    except StopIteration as end:
        return end.value, answer or ()


def together(searches: Sequence[tuple[SearchSession, Steps[_T]]]) -> Steps[list[_T]]:
    """Advance the steps of several sessions together; return the result of each."""
    found: dict[int, _T] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(searches)))
    while answers:
        steps: dict[int, Step] = {}
        for index, answer in answers.items():
            try:
                steps[index] = searches[index][1].send(answer)
            except StopIteration as end:
                found[index] = end.value
        if not steps:
            break
        results = yield Together([(searches[index][0], step) for index, step in steps.items()])
        answers = dict(zip(steps, results, strict=True))
    return [found[index] for index in range(len(searches))]
