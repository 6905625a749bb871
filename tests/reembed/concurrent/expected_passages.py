"""The passages that a collection must contain, as acknowledged to its clients.

Only one thread at a time changes a passage, and it records the result. So exactly one state of
each passage is correct in any order of events.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import Bm25Encoder, Encoder
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.foreign import ForeignPoints
from msmarco_qdrant.stores.payload import point_id, sort_tokens

WORDS = 900
_RANKED_AT_ONCE = 50
_FIELDS = ("pid", "text", "meta", "text_digest", "meta_digest", "seq")


def make_passage(pid: str, version: int, rng: random.Random) -> Passage:
    """Make a passage with a text unique to its pid and version."""
    words = " ".join(f"w{rng.randrange(WORDS)}" for _ in range(5))
    return Passage(pid, f"passage{pid} version{version} {words}", {"version": version})


def make_passages(count: int, seed: int = 0) -> Sequence[Passage]:
    """Make passages in their first version, with numeric and other pids."""
    rng = random.Random(seed)
    pids = [f"p{number}" if number % 3 else str(number) for number in range(count)]
    return [make_passage(pid, 0, rng) for pid in pids]


def make_anchors(count: int) -> Sequence[Passage]:
    """Make passages that are never changed; each has its own words."""
    return [
        Passage(f"anchor{number}", " ".join(f"anchor{number}of{part}" for part in range(6)))
        for number in range(count)
    ]


@dataclass(slots=True)
class Entry:
    """A passage: its current state, None if deleted, and all its versions so far."""

    pid: str
    current: Passage | None
    versions: list[Passage] = field(default_factory=list)

    def record(self, passage: Passage | None) -> None:
        """Record an acknowledged change."""
        self.current = passage
        if passage is not None:
            self.versions.append(passage)


class ExpectedPassages:
    """Every passage's last acknowledged state. Thread-safe. Anchors are never changed."""

    def __init__(self, anchors: Sequence[Passage], passages: Sequence[Passage]) -> None:
        self.anchors = anchors
        self._released = threading.Condition()
        self._entries = {one.pid: Entry(one.pid, one, [one]) for one in passages}
        self._free = set(self._entries)

    @contextmanager
    def borrow(self, count: int, rng: random.Random) -> Iterator[Sequence[Entry]]:
        """Borrow 1 to `count` passages that no other thread has borrowed; waits for one."""
        with self._released:
            self._released.wait_for(lambda: self._free)
            chosen = rng.sample(sorted(self._free), min(count, len(self._free)))
            self._free.difference_update(chosen)
        try:
            yield [self._entries[pid] for pid in chosen]
        finally:
            with self._released:
                self._free.update(chosen)
                self._released.notify_all()

    def entry(self, pid: str) -> Entry:
        """Return a passage, for tests with one client."""
        return self._entries.setdefault(pid, Entry(pid, None))

    @property
    def passages(self) -> Mapping[str, Passage]:
        """The passages that must exist, by pid; valid when none is borrowed."""
        entries = self._entries.values()
        there = {entry.pid: entry.current for entry in entries if entry.current is not None}
        return {**there, **{anchor.pid: anchor for anchor in self.anchors}}


def check_holds(
    store: Store, collection: str, expected: Mapping[str, Passage], encoder: Encoder
) -> None:
    """Check that a collection has this model and exactly these passages with their vectors."""
    metadata = store.metadata(collection)
    assert encoder.info.fingerprint == metadata.encoder.fingerprint
    assert metadata.copied_from is None
    check_passages(store, collection, expected)
    check_dense(store, collection, expected, encoder)
    check_sparse(store, collection, expected)


def check_passages(store: Store, collection: str, expected: Mapping[str, Passage]) -> None:
    """Check that each passage exists once, with its payload, and no others exist."""
    found: dict[str, Passage] = {}
    for id_, payload in store.collection(collection).scan(_FIELDS):
        passage = ForeignPoints("msmarco").passage(id_, payload)
        assert passage is not None
        assert passage.pid not in found, f"{passage.pid} is there twice"
        found[passage.pid] = passage
        digests = (text_digest(passage.text), meta_digest(passage.meta))
        assert digests == (payload["text_digest"], payload["meta_digest"])
    lost = {pid: one for pid, one in expected.items() if pid not in found}
    strays = {pid: one for pid, one in found.items() if pid not in expected}
    old = {
        pid: (one, found[pid])
        for pid, one in expected.items()
        if pid in found and found[pid] != one
    }
    assert ({}, {}, {}) == (lost, strays, old)
    assert len(expected) == store.collection(collection).info().points


def check_dense(
    store: Store, collection: str, expected: Mapping[str, Passage], encoder: Encoder
) -> None:
    """Check that every passage has its own text's vector: their cosine is 1."""
    passages = [*expected.values()]
    with SearchClient(store, collection, encoder) as client:
        for start in range(0, len(passages), _RANKED_AT_ONCE):
            some = passages[start : start + _RANKED_AT_ONCE]
            answers = client.rank_many([one.text for one in some], [[one.pid] for one in some])
            found = {hit.pid: hit.score for hits in answers for hit in hits}
            assert {one.pid: pytest.approx(1.0, abs=1e-5) for one in some} == found


def check_sparse(store: Store, collection: str, expected: Mapping[str, Passage]) -> None:
    """Check that every passage has the sparse vector of its text and the stored settings."""
    bm25 = Bm25Encoder(store.metadata(collection).bm25)
    vectors = store.admin_collection(collection).sparse_vectors([point_id(pid) for pid in expected])
    for pid, passage in expected.items():
        wanted = bm25.encode_passage(passage.text)
        ordered = sort_tokens(wanted.indices, wanted.values)
        assert ordered.indices == vectors[point_id(pid)].indices
        assert pytest.approx(ordered.values, rel=1e-6) == vectors[point_id(pid)].values
