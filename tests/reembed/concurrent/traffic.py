"""Writers, deleters and searchers at one collection, all at the same time, until they are stopped.

Each thread has its own handle on the store and draws from a seed of its own. Whoever changes a
passage does as a careful caller would: what was not acknowledged is done again at once. The ledger
has what was acknowledged. No search may fail, nor miss a passage that nobody changes.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

import pytest

from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.records import EncoderInfo, Passage, PrunePolicy
from msmarco_qdrant.core.search_types import Hit, SearchMode
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import CollectionReplacedError, IngestStoppedError, ModelMismatchError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store
from tests.reembed.concurrent.ledger import Entry, Ledger, make_passage

KINDS = ("written", "deleted", "searched")
MODES: Mapping[SearchMode, int] = {"dense": 10, "bm25": 4, "hybrid": 1}
"""How often each: where there is no index, a hybrid search takes as long as ten others."""
_TRIES = 25
_ASYNC_SEARCHES = 2

Handles = Callable[[], AbstractContextManager[Store]]


class Models:
    """The models that there are, by their cards: what loads a model in these tests."""

    def __init__(self, *encoders: Encoder) -> None:
        self._encoders = {encoder.info.fingerprint: encoder for encoder in encoders}

    def __call__(self, encoder_info: EncoderInfo) -> Encoder:
        """The model of a card."""
        return self._encoders[encoder_info.fingerprint]


class Caller:
    """Writes and removes as a careful caller does: again, until it is acknowledged.

    Attributes:
        again: How often something was done again because the collection had changed.
    """

    def __init__(self, store: Store, collection: str, models: Models) -> None:
        self._store = store
        self._collection = collection
        self._models = models
        self.again = 0

    def write(self, passages: Sequence[Passage], prune: PrunePolicy | None = None) -> None:
        """Ingest passages with the model that the collection has by then."""
        for _ in range(_TRIES):
            try:
                self._ingest(passages, prune)
            except ModelMismatchError:  # swapped between the two looks at the metadata
                self.again += 1
            except IngestStoppedError as stopped:
                done = stopped.report.written + stopped.report.unchanged
                if (
                    done == len(passages) and not prune
                ):  # of an ingest that ended early, this much is durable
                    return
                if not isinstance(stopped.__cause__, CollectionReplacedError):
                    raise
                self.again += 1
            else:
                return
        raise AssertionError(f"{len(passages)} passages were not written in {_TRIES} tries")

    def delete(self, pids: Sequence[str]) -> int:
        """Remove passages; how many were there."""
        return delete_passages(self._store, pids, collection=self._collection)

    def _ingest(self, passages: Sequence[Passage], prune: PrunePolicy | None) -> None:
        encoder_info = self._store.metadata(self._collection).encoder
        ingest_passages(
            passages,
            self._store,
            collection=self._collection,
            encoder=self._models(encoder_info),
            prune=prune,
            optimize=False,
        )


def check_answer(anchor: Passage, mode: SearchMode, hits: Sequence[Hit]) -> None:
    """An anchor's own text finds it first, with a cosine of 1: both vectors are of one model."""
    assert (anchor.pid, anchor.text) == (hits[0].pid, hits[0].text)
    if mode == "dense":
        assert pytest.approx(1.0, abs=1e-4) == hits[0].score


class Traffic:
    """The threads; a context manager that raises what any of them raised.

    Args:
        handles: Opens a handle on the store.
        collection: The collection's name.
        ledger: What it holds.
        models: The models that it may have.
        seed: What the threads do follows from it.
        writers: Threads that mostly write, and sometimes remove.
        deleters: Threads that mostly remove, and sometimes write.
        searchers: Threads that search; an event loop with several searches comes in addition.
        pause_s: Seconds that each thread waits for after each call, to leave the migration time.
    """

    def __init__(
        self,
        handles: Handles,
        collection: str,
        ledger: Ledger,
        models: Models,
        *,
        seed: int,
        writers: int = 2,
        deleters: int = 1,
        searchers: int = 1,
        pause_s: float = 0.02,
    ) -> None:
        self._handles = handles
        self._collection = collection
        self._ledger = ledger
        self._models = models
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._state = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._since: Counter[str] = Counter()
        self._waits = 0
        self._errors: list[BaseException] = []
        self._started = self._seconds = 0.0
        works = [
            *[("writer", number, 0.85) for number in range(writers)],
            *[("deleter", number, 0.3) for number in range(deleters)],
        ]
        self._threads = [
            self._thread(f"{name} {number}", self._change, f"{seed} {name} {number}", share)
            for name, number, share in works
        ]
        self._threads += [
            self._thread(f"searcher {number}", self._search, f"{seed} searcher {number}")
            for number in range(searchers)
        ]
        self._threads.append(self._thread("event loop", self._search_in_a_loop, f"{seed} loop"))

    def __enter__(self) -> Traffic:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._seconds = time.monotonic() - self._started
        if self._errors:
            raise self._errors[0]

    def __str__(self) -> str:
        total = sum(self._counts[kind] for kind in KINDS)
        told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self._counts.items()))
        return f"{told}: {total / self._seconds:,.0f} operations a second"

    def go_on(self, calls: int = 2, timeout_s: float = 300.0) -> None:
        """Wait until so many writes, removals and searches have begun since, and have ended.

        For one waiting thread at a time. It ends early if a thread has failed, which is raised
        when the traffic ends.

        Raises:
            TimeoutError: If it took too long.
        """

        def reached() -> bool:
            return bool(self._errors) or all(self._since[kind] >= calls for kind in KINDS)

        with self._state:
            self._waits += 1
            self._since.clear()
            if not self._state.wait_for(reached, timeout_s):
                raise TimeoutError(f"in {timeout_s} s there were no more calls than {self._since}")

    # ---- the threads -----------------------------------------------------------------------

    def _thread(self, name: str, work: Callable[..., None], *arguments: object) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(work, *arguments), name=name)

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            with self._handles() as store:
                work(store, *arguments)
        except BaseException as error:  # noqa: BLE001  # raised when the traffic ends
            with self._state:
                self._errors.append(error)
                self._state.notify_all()
            self._stopping.set()

    @contextmanager
    def _counted(self, kind: str, number: int) -> Iterator[None]:
        """Count a call with so many passages, or one search, when it ends well."""
        waits = self._waits
        yield
        with self._state:
            self._counts[kind] += number
            if waits == self._waits:
                self._since[kind] += 1
                self._state.notify_all()

    def _change(self, store: Store, seed: str, share_of_writes: float) -> None:
        """Write some passages or remove some, then others, and so on."""
        rng = random.Random(seed)
        caller = Caller(store, self._collection, self._models)
        while not self._stopping.is_set():
            with self._ledger.taken(rng.randint(1, 40), rng) as entries:
                if rng.random() < share_of_writes:
                    self._write(caller, entries, rng)
                else:
                    self._delete(caller, entries)
                    if rng.random() < 0.3:
                        self._write(caller, entries[: rng.randint(1, len(entries))], rng)
            self._stopping.wait(self._pause_s)
        with self._state:
            self._counts["done again"] += caller.again

    def _write(self, caller: Caller, entries: Sequence[Entry], rng: random.Random) -> None:
        passages = [another_version(entry, rng) for entry in entries]
        with self._counted("written", len(passages)):
            caller.write(passages)
        for entry, passage in zip(entries, passages, strict=True):
            entry.become(passage)

    def _delete(self, caller: Caller, entries: Sequence[Entry]) -> None:
        with self._counted("deleted", len(entries)):
            caller.delete([entry.pid for entry in entries])
        for entry in entries:
            entry.become(None)

    def _search(self, store: Store, seed: str) -> None:
        rng = random.Random(seed)
        encoder = self._models(store.metadata(self._collection).encoder)
        with SearchClient(store, self._collection, encoder, load_encoder=self._models) as client:
            while not self._stopping.is_set():
                anchor, mode = self._question(rng)
                with self._counted("searched", 1):
                    check_answer(anchor, mode, client.search(anchor.text, mode=mode, limit=3))
                self._stopping.wait(self._pause_s)

    def _search_in_a_loop(self, store: Store, seed: str) -> None:
        asyncio.run(self._search_together(store, seed))

    async def _search_together(self, store: Store, seed: str) -> None:
        encoder = self._models(store.metadata(self._collection).encoder)
        opening = AsyncSearchClient.open(
            store, collection=self._collection, encoder=encoder, load_encoder=self._models
        )
        async with await opening as client, asyncio.TaskGroup() as group:
            for number in range(_ASYNC_SEARCHES):
                rng = random.Random(f"{seed} {number}")
                group.create_task(self._search_again(client, rng))

    async def _search_again(self, client: AsyncSearchClient, rng: random.Random) -> None:
        while not self._stopping.is_set():
            anchor, mode = self._question(rng)
            with self._counted("searched", 1):
                check_answer(anchor, mode, await client.search(anchor.text, mode=mode, limit=3))
            await asyncio.sleep(self._pause_s)

    def _question(self, rng: random.Random) -> tuple[Passage, SearchMode]:
        (mode,) = rng.choices([*MODES], [*MODES.values()])
        return rng.choice(self._ledger.anchors), mode


def another_version(entry: Entry, rng: random.Random) -> Passage:
    """What a writer makes of a passage: a new text, another meta, an older version, or the same."""
    kind = rng.random()
    version = len(entry.versions)
    if kind < 0.45 or not entry.versions:
        return make_passage(entry.pid, version, rng)
    if kind < 0.75:
        return rng.choice(entry.versions)
    return Passage(entry.pid, entry.versions[-1].text, {"version": version, "moved": True})
