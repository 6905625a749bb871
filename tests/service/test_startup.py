"""The startup: retries with growing pauses, models loaded once (R6), payload indexes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.errors import StoreUnavailableError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.indexes import add_index, list_indexes
from msmarco_qdrant.service.startup import Opened, SharedModels, Startup, StartupStoppedError
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.migration_locks import hold_lock
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer
from tests.service.sidecars import (
    CountedModels,
    put,
    settings_in,
    sidecar_client,
    wait_until_ready,
)


class Pauses(threading.Event):
    """An event that does not wait: it keeps how long it was to wait, and may act instead."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._act = act

    def wait(self, timeout: float | None = None) -> bool:
        """Keep the seconds."""
        assert timeout is not None
        self.seconds.append(timeout)
        self._act()
        return self.is_set()


class Loads(CountedModels):
    """Counts the loads of the cross-encoder, too."""

    def reranker(self) -> Reranker | None:
        """Count it."""
        self.loaded.append("cross-encoder")
        return super().reranker()

    def new(self) -> Encoder:
        """Count it."""
        return self.of(self.encoders[0].info)


class Failing:
    """What warms the parts up: fails some times because the store is away."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.opened: list[Opened] = []

    def __call__(self, opened: Opened) -> Opened:
        """Fail, or return what was opened."""
        self.opened.append(opened)
        if self.left:
            self.left -= 1
            opened.close()
            raise StoreUnavailableError("the server is away again")
        return opened


def test_r6_a_startup_that_fails_late_waits_longer_each_time(tmp_path: Path) -> None:
    """Bounded, and models are loaded once, however often it begins again."""
    models, pauses, failing = Loads(), Pauses(), Failing(8)
    startup = Startup(settings_in(tmp_path), SharedModels(models), stopping=pauses)
    startup.run(failing).close()
    assert 9 == len(failing.opened)
    assert 8 == len(pauses.seconds)
    assert all(pause <= min(0.2 * 2**number, 5.0) for number, pause in enumerate(pauses.seconds)), (
        pauses.seconds
    )
    assert max(pauses.seconds) > 0
    assert ["hashing", "cross-encoder"] == [
        "hashing" if name == models.encoders[0].info.model else name for name in models.loaded
    ]


def test_r6_a_stop_ends_the_pause_at_once(tmp_path: Path) -> None:
    """No further attempt follows."""
    failing = Failing(100)
    pauses = Pauses(lambda: startup.stop())  # noqa: PLW0108  # defined on the next line
    startup = Startup(settings_in(tmp_path), SharedModels(Loads()), stopping=pauses)
    with pytest.raises(StartupStoppedError):
        startup.run(failing)
    assert (1, 1) == (len(failing.opened), len(pauses.seconds))


def test_r6_the_models_of_a_missing_collection_are_loaded_once(tmp_path: Path) -> None:
    """Also if the collection cannot be made at the first attempts."""
    models = Loads()
    shared = SharedModels(models)
    assert shared.new() is shared.new()
    assert shared.reranker() is shared.reranker()
    assert 2 == len(models.loaded)
    assert shared.of(models.encoders[0].info) is shared.new()
    assert [] == [*tmp_path.iterdir()]


# ---- payload indexes -------------------------------------------------------------------------

INDEX = "year=integer,place.name=keyword"
INDEXES = {"year": "integer", "place.name": "keyword"}
KEYS = {"seq", "meta.year", "meta.place.name", "meta.place[].name"}


def test_a_new_collection_has_the_indexes(tmp_path: Path) -> None:
    """Before its first passage; also one that is made again while the sidecar runs."""
    with LoopbackServer() as server:
        options = settings_in(tmp_path, server.url, index=INDEX)
        with sidecar_client(options) as client, closing(open_store(server.url)) as store:
            wait_until_ready(client)
            assert KEYS == {*store.collection("msmarco").spec().payload_indexes}
            store.drop_collection("msmarco__0001")
            put(client, {"pid": "1", "text": "one", "meta": {"year": 1}})
            assert KEYS == {*store.collection("msmarco").spec().payload_indexes}


@pytest.mark.slow
def test_an_existing_collection_gets_missing_indexes(tmp_path: Path) -> None:
    """Others stay; a migration that runs is not waited for."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ingest_passages([Passage("1", "x")], store, encoder=HashingEncoder(), optimize=False)
        add_index(store, "msmarco", "other", "bool")
        store.admin_collection("msmarco__0001").create_payload_index("meta.place.name", "keyword")
        with (
            hold_lock(store.migration_locks, "msmarco"),
            sidecar_client(settings_in(tmp_path, server.url, index=INDEX)) as client,
        ):
            wait_until_ready(client)
            assert "year" not in list_indexes(store, "msmarco")
        with sidecar_client(settings_in(tmp_path, server.url, index=INDEX)) as client:
            wait_until_ready(client)
            assert {"other": "bool", **INDEXES} == list_indexes(store, "msmarco")
            assert KEYS < {*store.collection("msmarco").spec().payload_indexes}


def test_an_index_of_another_kind_ends_the_sidecar(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting would not change it; the error has the commands."""
    caplog.set_level(logging.INFO)
    with closing(open_store(tmp_path / "store", create=True)) as store:
        ingest_passages([Passage("1", "x")], store, encoder=HashingEncoder(), optimize=False)
        add_index(store, "msmarco", "year", "float")
    startup = Startup(settings_in(tmp_path), CountedModels(), {"year": "integer"})
    with pytest.raises(UsageError, match=r"index remove year .*index add year=integer"):
        startup.run(lambda opened: opened)


@pytest.mark.parametrize("text", ["year", "year=int", "year=integer,year=float", "year=integer,"])
def test_an_invalid_index_is_refused_before_anything_is_opened(text: str, tmp_path: Path) -> None:
    """By the check of the settings."""
    with pytest.raises(UsageError, match=r"^--index must"):
        settings_in(tmp_path, index=text).check()
