"""A worker whose collection gets another model, between batches and in the middle of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from msmarco_qdrant.core.collection_types import StorageSettings
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import CollectionReplacedError, ModelNotFoundError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import another_handle, new_store
from tests.service.spool.helpers import (
    HookedEncoder,
    RecordedEvents,
    delete,
    ended,
    running_worker,
    texts_in,
    write,
)

OLD, NEW = HashingEncoder(64), HashingEncoder(32, salt="new")


class Loads:
    """Loads the new model, and counts.

    Args:
        missing: How often it is not to be had at first.
    """

    def __init__(self, missing: int = 0) -> None:
        self.names: list[str] = []
        self._missing = missing

    def __call__(self, collection: str, encoder_info: EncoderInfo) -> Encoder:
        """The model of that card."""
        assert NEW.info == encoder_info
        self.names.append(collection)
        if len(self.names) <= self._missing:
            raise ModelNotFoundError("it is not there yet")
        return NEW


@pytest.fixture(params=["edge", "loopback"])
def two_handles(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """The worker's handle on a store, and that of whoever changes the model."""
    with new_store(request.param, tmp_path) as ours, another_handle(ours) as theirs:
        yield ours, theirs


def _reembed(store: Store) -> None:
    reembed_collection(store, encoder=NEW, load_old=lambda _info: OLD, allow_worse=True)


@pytest.mark.slow
def test_another_model_between_batches(two_handles: tuple[Store, Store], spool: Spool) -> None:
    """It is loaded for the next batch that writes, once; a delete needs none."""
    ours, theirs = two_handles
    loads = Loads()
    with running_worker(spool, ours, OLD, reload=loads):
        ended(spool, spool.accept([write("1", "one"), write("2", "two")]))
        _reembed(theirs)
        ended(spool, spool.accept([delete("2")]))
        assert [] == loads.names
        for number in (3, 4):
            state = ended(spool, spool.accept([write(str(number), "more")]))
            assert ("done", 1) == (state.state, state.report.written)
        assert ["msmarco"] == loads.names
    assert {"1": "one", "3": "more", "4": "more"} == texts_in(ours)
    assert NEW.info == ours.metadata("msmarco").encoder


def test_another_model_in_the_middle_of_a_batch(
    two_handles: tuple[Store, Store], spool: Spool
) -> None:
    """The batch is written again with the new model, and counts once."""
    ours, theirs = two_handles
    loads = Loads()
    ingest_passages([Passage("1", "one")], ours, encoder=OLD, optimize=False)
    events = RecordedEvents()
    with running_worker(
        spool, ours, HookedEncoder(lambda: _reembed(theirs)), reload=loads, events=events
    ):
        ids = [spool.accept([write("1", "new"), write("2", "two")]), spool.accept([delete("2")])]
        reports = [ended(spool, id_).report for id_ in ids]
        assert [(2, 0), (0, 1)] == [(one.written, one.deleted) for one in reports]
    assert ["msmarco"] == loads.names
    assert isinstance(events.next_failure()[2], CollectionReplacedError)
    assert {"1": "new"} == texts_in(ours)


class Dotted(HashingEncoder):
    """The old model, with vectors that are compared by their dot product."""

    @property
    def info(self) -> EncoderInfo:
        """The old one's but for that."""
        return replace(super().info, similarity="dot")


def test_the_same_model_with_another_measure(
    two_handles: tuple[Store, Store], spool: Spool
) -> None:
    """The collection was made again: its own encoder is loaded, and the batch does not wait."""
    ours, theirs = two_handles
    asked: list[EncoderInfo] = []

    def load(_collection: str, encoder_info: EncoderInfo) -> Encoder:
        asked.append(encoder_info)
        return dotted

    dotted = Dotted(64)
    with running_worker(spool, ours, OLD, reload=load):
        ended(spool, spool.accept([write("1", "one")]))
        theirs.drop_collection(theirs.aliases()["msmarco"])
        ingest_passages([Passage("2", "two")], theirs, encoder=dotted, optimize=False)
        state = ended(spool, spool.accept([write("3", "three")]))
        assert ("done", 1) == (state.state, state.report.written)
    assert [dotted.info] == asked
    assert {"2": "two", "3": "three"} == texts_in(ours)


def test_a_collection_that_the_worker_makes(two_handles: tuple[Store, Store], spool: Spool) -> None:
    """It keeps its vectors as it is told to."""
    ours, _ = two_handles
    storage = StorageSettings(on_disk=False, quantization="none")
    with running_worker(spool, ours, OLD, storage=storage):
        ended(spool, spool.accept([write("1", "one")]))
    assert storage == ours.collection("msmarco").info().spec.storage


@pytest.mark.slow
def test_another_model_that_is_not_to_be_had(
    two_handles: tuple[Store, Store], spool: Spool
) -> None:
    """The batch waits until it is, however long."""
    ours, theirs = two_handles
    ingest_passages([Passage("1", "one")], ours, encoder=OLD, optimize=False)
    _reembed(theirs)
    loads = Loads(missing=7)
    with running_worker(spool, ours, OLD, reload=loads):
        assert "done" == ended(spool, spool.accept([write("1", "new")])).state
    assert 8 == len(loads.names)
    assert {"1": "new"} == texts_in(ours)
