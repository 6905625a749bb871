"""A worker whose batches fail one after the other: the store may be what is wrong with them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import StoreCorruptError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.reembed.concurrent.call_hooks import hooked
from tests.service.spool.helpers import (
    RecordedEvents,
    delete,
    ended,
    log_fields,
    running_worker,
    state_of,
    texts_in,
    write,
)

TRIES = 5


class Panic(BaseException):
    """As an engine in Rust raises it."""


class Broken:
    """A store that is corrupt as a whole: it cannot be read, and no batch can be applied.

    Args:
        store: What is behind it.
        error: What it says to whoever asks it.
    """

    def __init__(self, store: Store, error: BaseException) -> None:
        self.is_broken = True
        self.asked = 0
        self._error = error
        self.store = hooked(store, self._act)
        self.encoder = _Sick(self)

    def _act(self, name: str) -> None:
        if name == "info":
            self.asked += 1
            if self.is_broken:
                raise self._error


class _Sick(HashingEncoder):
    """Fails as long as the store is broken."""

    def __init__(self, broken: Broken) -> None:
        super().__init__()
        self._broken = broken
        self.is_sick = False

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Fail, or encode."""
        if self._broken.is_broken or self.is_sick:
            raise StoreCorruptError("the file of a segment is damaged")
        yield from super().encode_passages(passages)


@pytest.mark.slow
@pytest.mark.parametrize("error", [StoreCorruptError("damaged"), Panic("damaged")])
def test_a_store_that_is_corrupt_as_a_whole(
    spool: Spool, store: Store, error: BaseException
) -> None:
    """One batch fails, the next one waits until the store is well, and all others are done."""
    ingest_passages([Passage("0", "nought")], store, encoder=HashingEncoder(), optimize=False)
    broken, events = Broken(store, error), RecordedEvents()
    ids = [spool.accept([write(str(number), "text")]) for number in range(1, 4)]
    with running_worker(spool, broken.store, broken.encoder, events=events):
        assert "failed" == ended(spool, ids[0]).state
        failures = iter(events.next_failure, None)
        later = (number for id_, number, _ in failures if id_ == ids[1])
        assert [*range(1, 3 * TRIES)] == [*itertools.islice(later, 3 * TRIES - 1)]
        assert ["working", "working"] == [state_of(spool, id_).state for id_ in ids[1:]]
        broken.is_broken = False
        assert ["done", "done"] == [ended(spool, id_).state for id_ in ids[1:]]
    assert {"0": "nought", "2": "text", "3": "text"} == texts_in(store)


def test_a_store_that_answers(spool: Spool, store: Store) -> None:
    """Then it is the batches: each fails, and nothing waits for ever."""
    ingest_passages([Passage("0", "nought")], store, encoder=HashingEncoder(), optimize=False)
    broken = Broken(store, StoreCorruptError("damaged"))
    broken.is_broken, broken.encoder.is_sick = False, True
    ids = [spool.accept([write(str(number), "text")]) for number in range(3)]
    last = spool.accept([delete("1")])
    with running_worker(spool, broken.store, broken.encoder):
        assert ["failed"] * 3 == [ended(spool, id_).state for id_ in ids]
        assert "done" == ended(spool, last).state
    # By the attempt at all of them, by each attempt, and after those that follow.
    assert 1 + 3 * TRIES + 2 * TRIES == broken.asked


def test_a_batch_that_is_done_between(spool: Spool, store: Store) -> None:
    """Shows that the store is well: it is not asked for the next one that fails."""
    ingest_passages([Passage("0", "nought")], store, encoder=HashingEncoder(), optimize=False)
    broken = Broken(store, StoreCorruptError("damaged"))
    broken.is_broken, broken.encoder.is_sick = False, True
    rows = [[write("1", "text")], [delete("1")], [write("2", "text")]]
    ids = [spool.accept(one) for one in rows]
    with running_worker(spool, broken.store, broken.encoder):
        assert ["failed", "done", "failed"] == [ended(spool, id_).state for id_ in ids]
    assert 1 + 2 * TRIES == broken.asked  # by the attempts themselves


def test_failures_are_told_with_their_batch(
    spool: Spool, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """At first; how often, and when the next attempt follows; and the end."""
    ingest_passages([Passage("0", "nought")], store, encoder=HashingEncoder(), optimize=False)
    broken = Broken(store, StoreCorruptError("damaged"))
    broken.is_broken, broken.encoder.is_sick = False, True
    id_ = spool.accept([write("1", "text")])
    with running_worker(spool, broken.store, broken.encoder):
        ended(spool, id_)
    first, last = log_fields(caplog)
    assert (id_, 1, "failed") == (first["batch"], first["attempt"], last["state"])
    assert {"batch", "attempt", "again_in_s"} == first.keys()
