"""Threads that write, delete and search one collection until they are stopped.

Each thread has its own handle and its own random seed. A writer repeats what was not acknowledged,
as a careful client does, and records what was. No search may fail or miss an unchanged passage.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest

from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.core.search_types import Hit, SearchMode
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import CollectionReplacedError, IngestStoppedError, ModelMismatchError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store
from tests.reembed.concurrent.expected_passages import Entry, ExpectedPassages, make_passage

KINDS = ("written", "deleted", "searched")
MODES: Mapping[SearchMode, int] = {"dense": 10, "bm25": 4, "hybrid": 1}
"""Weight of each mode: without an index a hybrid search takes as long as ten others."""
_TRIES = 25
_ASYNC_SEARCHES = 2

Handles = Callable[[], AbstractContextManager[Store]]


class Models:
    """The loader of the tests' encoders."""

    def __init__(self, *encoders: Encoder) -> None:
        self._encoders = {encoder.info.fingerprint: encoder for encoder in encoders}

    def __call__(self, encoder_info: EncoderInfo) -> Encoder:
        """Return an encoder."""
        return self._encoders[encoder_info.fingerprint]


class Caller:
    """A client that repeats writes until they are acknowledged."""

    def __init__(self, store: Store, collection: str, models: Models) -> None:
        self._store = store
        self._collection = collection
        self._models = models

    def write(self, passages: Sequence[Passage], prune: PrunePolicy | None = None) -> None:
        """Ingest passages with the current model of the collection."""
        for _ in range(_TRIES):
            try:
                self._ingest(passages, prune)
            except ModelMismatchError:  # swapped between the two reads of the metadata
                continue
            except IngestStoppedError as stopped:
                done = stopped.report.written + stopped.report.unchanged
                if done == len(passages) and not prune:  # durable though the ingest stopped
                    return
                if not isinstance(stopped.__cause__, CollectionReplacedError):
                    raise
            else:
                return
        raise AssertionError(f"{len(passages)} passages were not written in {_TRIES} tries")

    def delete(self, pids: Sequence[str]) -> int:
        """Delete passages; returns the number found."""
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
    """Check that an anchor's text finds it first, with a cosine of 1, so by one model."""
    assert (anchor.pid, anchor.text) == (hits[0].pid, hits[0].text)
    if mode == "dense":
        assert pytest.approx(1.0, abs=1e-4) == hits[0].score


class Traffic:
    """The threads; a context manager that raises the first error of any of them.

    Two of them write, one deletes, one searches, and an event loop runs several searches.

    Args:
        handles: Opens a handle on the store.
        collection: The collection's name.
        expected: Its passages.
        models: The models that it may have.
        seed: The random seed.
        writers: Number of threads that mostly write.
        pause_s: Seconds that each thread waits after each call.
    """

    def __init__(
        self,
        handles: Handles,
        collection: str,
        expected: ExpectedPassages,
        models: Models,
        *,
        seed: int,
        writers: int = 2,
        pause_s: float = 0.02,
    ) -> None:
        self._handles = handles
        self._collection = collection
        self._expected = expected
        self._models = models
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._state = threading.Condition()
        self._since: Counter[str] = Counter()
        self._waits = 0
        self._errors: list[BaseException] = []
        self._threads = [
            *(self._thread(self._change, f"{seed} writer {n}", 0.85) for n in range(writers)),
            self._thread(self._change, f"{seed} deleter", 0.3),
            self._thread(self._search, f"{seed} searcher"),
            self._thread(self._search_in_a_loop, f"{seed} loop"),
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def go_on(self, calls: int = 2, timeout_s: float = 300.0) -> None:
        """Wait until so many writes, deletes and searches have begun and ended.

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
                raise TimeoutError(f"only {self._since} calls in {timeout_s} s")

    # ---- the threads -----------------------------------------------------------------------

    def _thread(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        return threading.Thread(target=self._run, args=(work, *arguments))

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            with self._handles() as store:
                work(store, *arguments)
        except BaseException as error:  # noqa: BLE001  # raised when the traffic ends
            with self._state:
                self._errors.append(error)
                self._state.notify_all()
            self._stopping.set()

    @contextmanager
    def _count(self, kind: str) -> Iterator[None]:
        """Count a call that began and succeeded since the last `go_on`."""
        waits = self._waits
        yield
        with self._state:
            if waits == self._waits:
                self._since[kind] += 1
                self._state.notify_all()

    def _change(self, store: Store, seed: str, share_of_writes: float) -> None:
        """Write or delete random passages until stopped."""
        rng = random.Random(seed)
        caller = Caller(store, self._collection, self._models)
        while not self._stopping.is_set():
            with self._expected.borrow(rng.randint(1, 40), rng) as entries:
                if rng.random() < share_of_writes:
                    self._write(caller, entries, rng)
                else:
                    self._delete(caller, entries)
                    if rng.random() < 0.3:
                        self._write(caller, entries[: rng.randint(1, len(entries))], rng)
            self._stopping.wait(self._pause_s)

    def _write(self, caller: Caller, entries: Sequence[Entry], rng: random.Random) -> None:
        passages = [another_version(entry, rng) for entry in entries]
        with self._count("written"):
            caller.write(passages)
        for entry, passage in zip(entries, passages, strict=True):
            entry.record(passage)

    def _delete(self, caller: Caller, entries: Sequence[Entry]) -> None:
        with self._count("deleted"):
            caller.delete([entry.pid for entry in entries])
        for entry in entries:
            entry.record(None)

    def _search(self, store: Store, seed: str) -> None:
        rng = random.Random(seed)
        encoder = self._models(store.metadata(self._collection).encoder)
        with SearchClient(store, self._collection, encoder, load_encoder=self._models) as client:
            while not self._stopping.is_set():
                anchor, mode = self._draw(rng)
                with self._count("searched"):
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
            anchor, mode = self._draw(rng)
            with self._count("searched"):
                check_answer(anchor, mode, await client.search(anchor.text, mode=mode, limit=3))
            await asyncio.sleep(self._pause_s)

    def _draw(self, rng: random.Random) -> tuple[Passage, SearchMode]:
        (mode,) = rng.choices([*MODES], [*MODES.values()])
        return rng.choice(self._expected.anchors), mode


def another_version(entry: Entry, rng: random.Random) -> Passage:
    """Draw a new text, another meta, or an older version."""
    kind = rng.random()
    version = len(entry.versions)
    if kind < 0.45 or not entry.versions:
        return make_passage(entry.pid, version, rng)
    if kind < 0.75:
        return rng.choice(entry.versions)
    return Passage(entry.pid, entry.versions[-1].text, {"version": version, "moved": True})
