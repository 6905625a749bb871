"""Execution of the steps of searches in an event loop, in batches with other searches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.checks import encode_queries, score_pairs
from msmarco_qdrant.errors import SchemaError
from msmarco_qdrant.runtime.micro_batcher import MicroBatcher
from msmarco_qdrant.search.driver import execute_step
from msmarco_qdrant.search.session import SearchSession
from msmarco_qdrant.search.step import (
    Encode,
    Query,
    Refresh,
    Retrieve,
    Score,
    Step,
    Steps,
    Together,
)
from msmarco_qdrant.search.steps import Searcher
from msmarco_qdrant.stores import AsyncCollection
from msmarco_qdrant.stores.payload import HIT_FIELDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_QUERIES_PER_BATCH = 64
_PAIRS_PER_BATCH = 256
_PAIRS_PER_CALL = 128
"""Pairs that a search has scored at a time: less than a second on two cores."""

_T = TypeVar("_T")
_EncoderQuery: TypeAlias = tuple[Encoder, str]


class AsyncDriver:
    """Executes the steps of a session's searches without blocking the loop.

    Concurrent queries are encoded in one forward pass, in a thread, and pairs are scored in one.

    Args:
        session: The session.
        collection: Its collection.
    """

    def __init__(self, session: SearchSession, collection: AsyncCollection) -> None:
        self._session = session
        self._collection = collection
        self._encode: MicroBatcher[_EncoderQuery, NDArray[np.float32]] = MicroBatcher(
            _encode_queries, max_items=_QUERIES_PER_BATCH, name="msmarco-qdrant-encode"
        )
        self._score: MicroBatcher[tuple[str, str], float] = MicroBatcher(
            lambda pairs: score_pairs(session.reranker, pairs).tolist(),
            max_items=_PAIRS_PER_BATCH,
            name="msmarco-qdrant-rerank",
        )
        self._others: dict[SearchSession, asyncio.Task[AsyncCollection]] = {}
        self._refreshes: dict[Searcher, asyncio.Task[Searcher]] = {}

    async def drain(self) -> None:
        """Wait for the models and collections that cancelled searches load."""
        if running := [*self._refreshes.values(), *self._others.values()]:
            await asyncio.wait(running)

    async def close(self) -> None:
        """Close the threads, after all searches have ended."""
        async with AsyncExitStack() as stack:  # closes each, also if the other fails to close
            for opening in self._others.values():
                stack.push_async_callback((await opening).close)
            stack.push_async_callback(self._encode.close)
            stack.push_async_callback(self._score.close)

    async def run(self, steps: Steps[_T]) -> _T:
        """Execute the steps of a search one after the other."""
        try:
            step = next(steps)
            while True:
                try:
                    result = await self._execute(step)
                except SchemaError as exc:  # of another model: the search starts over
                    step = steps.throw(exc)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            found: _T = end.value
            return found

    async def _execute(self, step: Step) -> Any:
        """Execute a step without blocking the loop; encode and score in batches with others."""
        import numpy as np

        match step:
            case Encode(encoder, queries):
                vectors = await self._encode([(encoder, query) for query in queries])
                return np.stack(vectors) if vectors else np.empty((0, 0), "f4")
            case Score(pairs):
                return np.asarray(await self._score_all(pairs), np.float32)
            case Together(parts):
                return await self._execute_together(parts)
            case _:
                return await self._execute_in(self._session, step)

    async def _execute_together(self, parts: Sequence[tuple[SearchSession, Step]]) -> list[Any]:
        """Execute steps of several collections at once; raise the first error when all ended."""
        calls = [self._execute_in(session, step) for session, step in parts]
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def _execute_in(self, session: SearchSession, step: Step) -> Any:
        """Execute a step that reads a collection."""
        match step:
            case Query(point_queries):
                return await (await self._collection_of(session)).query(point_queries)
            case Retrieve(ids):
                return await (await self._collection_of(session)).retrieve(ids, HIT_FIELDS)
            case Refresh(used, True):
                return await self._refresh(session, used)
            case _:
                return await asyncio.to_thread(execute_step, session, step)

    async def _collection_of(self, session: SearchSession) -> AsyncCollection:
        """Return the collection of a session; a thread opens another than the client's own."""
        if session is self._session:
            return self._collection
        opening = self._others.get(session)
        if opening is None:
            opening = asyncio.create_task(asyncio.to_thread(session.open_async))
            self._others[session] = opening
            opening.add_done_callback(lambda done: self._end_opening(session, done))
        return await asyncio.shield(opening)  # the others wait on when one is cancelled

    def _end_opening(self, session: SearchSession, done: asyncio.Task[AsyncCollection]) -> None:
        if done.cancelled() or done.exception() is not None:
            del self._others[session]  # the next search tries again

    async def _score_all(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Score pairs in parts: between two of them other searches are served, or this one ends."""
        return [
            score
            for part in in_batches(pairs, _PAIRS_PER_CALL)
            for score in await self._score(part)
        ]

    async def _refresh(self, session: SearchSession, used: Searcher) -> Searcher:
        """Refresh in one thread for all searches that used the same searcher."""
        refresh = self._refreshes.get(used)
        if refresh is None:
            refresh = asyncio.create_task(asyncio.to_thread(execute_step, session, Refresh(used)))
            self._refreshes[used] = refresh
            refresh.add_done_callback(lambda done: self._end_refresh(used, done))
        return await asyncio.shield(refresh)  # the others wait on when one is cancelled

    def _end_refresh(self, used: Searcher, done: asyncio.Task[Searcher]) -> None:
        del self._refreshes[used]
        if not done.cancelled():
            done.exception()  # marks it as retrieved: all searches may have been cancelled


def _encode_queries(queries: Sequence[_EncoderQuery]) -> list[NDArray[np.float32]]:
    """Encode each query with its encoder; during a model swap there are two."""
    vectors: dict[int, NDArray[np.float32]] = {}
    for encoder in {id(encoder): encoder for encoder, _ in queries}.values():
        indices = [index for index, (its, _) in enumerate(queries) if its is encoder]
        rows = encode_queries(encoder, [queries[index][1] for index in indices])
        vectors.update(zip(indices, rows, strict=True))
    return [vectors[index] for index in range(len(queries))]
