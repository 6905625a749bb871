"""Execution of the steps of searches, one after the other, in the caller's thread.

`async_driver` executes them in an event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from msmarco_qdrant.encoding.checks import encode_queries, score_pairs
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.errors import SchemaError
from msmarco_qdrant.search.step import (
    CountPoints,
    Encode,
    EncodePassages,
    GetAliases,
    GetPayloadIndexes,
    OpenSession,
    Query,
    Refresh,
    Retrieve,
    Score,
    Step,
    Steps,
    Together,
)
from msmarco_qdrant.stores import AliasedCollection, Collection
from msmarco_qdrant.stores.payload import HIT_FIELDS

if TYPE_CHECKING:
    from msmarco_qdrant.search.session import SearchSession

_T = TypeVar("_T")


def run_steps(session: SearchSession, steps: Steps[_T]) -> _T:
    """Execute the steps of a search one after the other."""
    try:
        step = next(steps)
        while True:
            try:
                result = execute_step(session, step)
            except SchemaError as exc:  # of another model: the search starts over
                step = steps.throw(exc)
            else:
                step = steps.send(result)
    except StopIteration as end:
        found: _T = end.value
        return found


def execute_step(session: SearchSession, step: Step) -> Any:
    """Execute one step of a search, and return its result."""
    match step:
        case Encode() | EncodePassages() | Score():
            return _run_model(session, step)
        case Refresh(used, loads_model):
            return session.refresh.update(used, loads_model=loads_model)
        case OpenSession(name):
            return session.group.session(name)
        case GetAliases():
            return session.store.aliases()
        case Together(parts):
            return [execute_step(other, part) for other, part in parts]
        case _:
            return read_collection(session.searched, step)


def _run_model(session: SearchSession, step: Encode | EncodePassages | Score) -> Any:
    match step:
        case Encode(encoder, queries):
            return encode_queries(encoder, queries)
        case EncodePassages(encoder, texts):
            return encode_texts(encoder, texts)
        case Score(pairs):
            return score_pairs(session.reranker, pairs)


def read_collection(
    collection: Collection | AliasedCollection,
    step: Query | Retrieve | GetPayloadIndexes | CountPoints,
) -> Any:
    """Execute a step that reads a collection, and return its result."""
    match step:
        case Query(point_queries):
            return collection.query(point_queries)
        case Retrieve(ids):
            return collection.retrieve(ids, HIT_FIELDS)
        case GetPayloadIndexes():
            return collection.spec().payload_indexes
        case CountPoints():
            return collection.info(all_replicas=False).points
