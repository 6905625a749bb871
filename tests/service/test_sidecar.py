"""The whole sidecar: what it does from its start to its end, and when something is not there."""

from __future__ import annotations

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from msmarco_qdrant.core.metadata_types import UserMigration
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import MsmarcoQdrantError, SpoolError, StoreCorruptError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.sidecar import Sidecar
from msmarco_qdrant.service.spool.failed import FailedBatches
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.startup import Startup, StartupStoppedError
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer
from tests.service.sidecars import (
    TIMEOUT_S,
    CountedModels,
    asked_until,
    ended,
    pids_of,
    put,
    settings_in,
    sidecar_client,
    wait_until_ready,
)

LONDON = {"pid": "1", "text": "london is big"}
PARIS = {"pid": "2", "text": "paris is on the seine", "meta": {"river": "seine"}}
TOKEN = "t" * 16
EVERYWHERE = "0.0.0.0"  # noqa: S104  # which is refused


def test_from_nothing_to_answers_and_on_after_the_end(tmp_path: Path) -> None:
    """The collection is made, passages are searchable when the answer says so, and stay."""
    options = settings_in(tmp_path)
    with sidecar_client(options) as client:
        wait_until_ready(client)
        assert [] == pids_of(client, "london")
        told = put(client, LONDON, PARIS)
        assert ("done", 2) == (told["state"], told["written"])
        for mode in ("dense", "bm25", "hybrid"):
            assert "1" == pids_of(client, "london is big", mode=mode)[0]
        assert 1 == ended(client, client.delete("/passages/1"))["deleted"]
        assert ["2"] == pids_of(client, "london is big")
    with sidecar_client(options) as client:
        wait_until_ready(client)
        assert ["2"] == pids_of(client, "paris", filter={"river": "seine"})
        assert 1 == put(client, LONDON, PARIS)["unchanged"]


@pytest.mark.slow
def test_what_was_accepted_without_a_store_is_written_when_it_comes(tmp_path: Path) -> None:
    """A server that is away at the start: batches are taken, and the rest says what is missing."""
    with LoopbackServer() as server:
        server.stop()
        with sidecar_client(settings_in(tmp_path, server.url)) as client:
            assert {"status": "ok"} == client.get("/healthz").json()
            ready = client.get("/readyz")
            assert (503, "5") == (ready.status_code, ready.headers["retry-after"])
            assert "is not reached yet" == ready.json()["checks"]["store"]
            accepted = client.post("/passages", json=[LONDON])
            assert (202, 1) == (accepted.status_code, accepted.json()["accepted"])
            search = client.post("/search", json={"query": "london"})
            assert (503, True) == (search.status_code, "retry-after" in search.headers)
            server.start()
            assert "done" == put(client, PARIS)["state"]
            assert {"1", "2"} == set(pids_of(client, "london"))


@pytest.mark.slow
def test_a_store_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """Nothing that was accepted is lost; searches and `/readyz` say it meanwhile."""
    with LoopbackServer() as server, sidecar_client(settings_in(tmp_path, server.url)) as client:
        wait_until_ready(client)
        put(client, LONDON)
        server.stop()
        batch = client.post("/passages", json=[PARIS]).json()["batch"]
        search = client.post("/search", json={"query": "london"})
        assert (503, "store-unavailable") == (search.status_code, search.json()["type"][-17:])
        shown = asked_until(lambda: _unless("ok", client.get("/readyz").json()["checks"]["store"]))
        assert "does not answer" == shown
        assert client.get(f"/batches/{batch}").json()["state"] in ("queued", "working")
        server.start()
        assert 1 == ended(client, client.delete("/passages/1"))["deleted"]
        assert "done" == client.get(f"/batches/{batch}").json()["state"]
        assert ["2"] == pids_of(client, "london")
        wait_until_ready(client)


@pytest.mark.slow
def test_an_end_in_the_middle(tmp_path: Path) -> None:
    """Whoever waits for a batch is told that it is on disk; it is done after the next start."""
    with LoopbackServer() as server:
        options = settings_in(tmp_path, server.url, grace_s=0)
        with sidecar_client(options) as client:
            wait_until_ready(client)
            server.stop()
            accepted = client.post("/passages", json=[LONDON]).json()["batch"]
        assert 1 == len([*(tmp_path / "spool" / "incoming").iterdir()])
        server.start()
        with sidecar_client(options) as client:
            put(client, PARIS)
            assert "done" == client.get(f"/batches/{accepted}").json()["state"]
            assert {"1", "2"} == set(pids_of(client, "london"))


@pytest.mark.slow
def test_the_model_is_loaded_once_and_again_after_a_change(tmp_path: Path) -> None:
    """Writing and searching share it; a re-embedding meanwhile brings the new one."""
    models = CountedModels((HashingEncoder(), HashingEncoder(128, salt="new")))
    old, new = models.encoders
    with (
        LoopbackServer() as server,
        sidecar_client(settings_in(tmp_path, server.url), models) as client,
    ):
        wait_until_ready(client)
        put(client, LONDON)
        assert [old.info.model] == models.loaded
        with closing(open_store(server.url)) as store:
            reembed_collection(store, "msmarco", encoder=new, load_old=lambda _info: old)
        put(client, PARIS)
        assert {"1", "2"} == set(pids_of(client, "london"))
        assert [old.info.model, new.info.model] == models.loaded
        assert new.info.model == client.get("/status").json()["model"]["name"]


def test_not_ready_before_the_model(tmp_path: Path) -> None:
    """`/readyz` says what is missing, searches are told to come back."""
    models = CountedModels()
    models.let.clear()
    with closing(open_store(tmp_path / "store", create=True)) as store:
        ingest_passages([Passage("1", "text")], store, encoder=models.encoders[0], optimize=False)
    with sidecar_client(settings_in(tmp_path), models) as client:
        try:
            told = asked_until(lambda: _unless("store", client.get("/readyz").json()["detail"]))
            assert "Not ready yet: model." == told
            assert 503 == client.post("/search", json={"query": "london"}).status_code
        finally:
            models.let.set()
        wait_until_ready(client)


def test_an_end_while_the_model_is_being_loaded(tmp_path: Path) -> None:
    """Nothing is begun any more: what was accepted waits for the next start."""
    models = CountedModels()
    models.let.clear()
    options = settings_in(tmp_path, grace_s=TIMEOUT_S)
    with ThreadPoolExecutor(1) as other, sidecar_client(options, models) as client:
        client.post("/passages", json=[LONDON])
        other.submit(_let_when_closed, str(client.base_url), models)
    assert 1 == len([*(tmp_path / "spool" / "incoming").iterdir()])
    with sidecar_client(options, models) as client:
        wait_until_ready(client)
        asked_until(lambda: pids_of(client, "london") or None)


def _let_when_closed(url: str, models: CountedModels) -> None:
    def refused() -> bool | None:
        try:
            httpx.get(f"{url}/healthz")
        except httpx.ConnectError:
            return True
        return None

    asked_until(refused)
    models.let.set()


def test_a_collection_that_is_behind_is_not_ready(tmp_path: Path) -> None:
    """Pending and unknown migrations are named."""
    with LoopbackServer() as server:
        with closing(open_store(server.url)) as store:
            ingest_passages([Passage("1", "text")], store, encoder=HashingEncoder(), optimize=False)
            metadata = store.metadata("msmarco")
            store.put_metadata(
                "msmarco__0001",
                replace(metadata, migrations=(metadata.migrations[0], "0099_of_tomorrow")),
            )
        with sidecar_client(settings_in(tmp_path, server.url)) as client:
            problem = asked_until(lambda: client.get("/readyz").json()["checks"].get("migrations"))
            assert "pending: 0002_payload_indexes; unknown: 0099_of_tomorrow" == problem


@pytest.mark.slow
def test_r2_a_migration_of_a_user_leaves_it_ready(tmp_path: Path) -> None:
    """Recorded by this version or an earlier one."""
    recorded = (UserMigration("0001_mine", "changes", "00"),)
    for number, users in enumerate((None, recorded)):
        with LoopbackServer() as server:
            with closing(open_store(server.url)) as store:
                ingest_passages(
                    [Passage("1", "text")], store, encoder=HashingEncoder(), optimize=False
                )
                metadata = store.metadata("msmarco")
                ledger = (*metadata.migrations, "0001_mine")
                changed = replace(metadata, migrations=ledger, user_migrations=users)
                store.put_metadata("msmarco__0001", changed)
            with sidecar_client(settings_in(tmp_path / str(number), server.url)) as client:
                wait_until_ready(client)


@pytest.mark.slow
def test_what_waiting_would_not_mend_ends_it(tmp_path: Path) -> None:
    """A spool in use, a port in use, something else where the store should be."""
    options = settings_in(tmp_path)
    with Spool.open(options.spool), pytest.raises(SpoolError, match="in use by process"):
        _run(options)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = options.model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(UsageError, match="pass another --port"):
            _run(busy)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "novel.txt").write_text("It was a dark and stormy night")
    with pytest.raises(StoreCorruptError):
        _run(options)


def _unless(word: str, text: str) -> str | None:
    return None if word in text else text


def _run(options: SidecarSettings) -> None:
    asyncio.run(Sidecar(options, CountedModels()).run())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"host": EVERYWHERE}, "MSMARCO_QDRANT_READ_TOKEN and MSMARCO_QDRANT_WRITE_TOKEN"),
        ({"host": EVERYWHERE, "read_token": SecretStr(TOKEN)}, "set MSMARCO_QDRANT_WRITE_TOKEN"),
        ({"inbox": Path("there/spool/inbox")}, "must be separate directories"),
        ({"inbox": Path("there/spool")}, "must be separate directories"),
        ({"inbox": Path("there")}, "must be separate directories"),
        ({"collection": "../up"}, "'../up'"),
        ({"store": ":memory:"}, "ends with its handle"),
    ],
)
def test_options_that_cannot_be(wrong: dict[str, Any], told: str) -> None:
    """Each is refused before anything is opened, and says what to do."""
    with pytest.raises(UsageError, match=told.replace(".", r"\.")):
        settings_in(Path("there"), **wrong).check()


def test_an_opening_that_is_stopped(tmp_path: Path) -> None:
    """It does not wait for a store that is away."""
    with LoopbackServer() as server:
        url = server.url
    opening = Startup(settings_in(tmp_path, url), CountedModels())
    opening.stop()
    with pytest.raises(StartupStoppedError) as caught:
        opening.run(lambda opened: opened)
    assert isinstance(caught.value, MsmarcoQdrantError)


@pytest.mark.slow
def test_r3_a_failed_batch_is_requeued_while_it_runs(tmp_path: Path) -> None:
    """It is applied after its cause is fixed; metrics show it before."""
    inbox = tmp_path / "inbox"
    with sidecar_client(settings_in(tmp_path, inbox=inbox)) as client:
        wait_until_ready(client)
        (inbox / "bad.tsv").write_text("no tab here\n")
        failed = FailedBatches(tmp_path / "spool")
        (batch,) = asked_until(lambda: failed.list() or None)
        assert "msmarco_qdrant_spool_failed 1.0" in client.get("/metrics").text
        (path,) = (tmp_path / "spool" / "failed").glob("*.tsv")
        path.write_text("1\tlondon is big\n")
        failed.requeue([batch.id])
        asked_until(lambda: pids_of(client, "london") or None)
        assert "done" == asked_until(lambda: _unless_queued(client, batch.id))
        assert "msmarco_qdrant_spool_failed 0.0" in client.get("/metrics").text


def _unless_queued(client: httpx.Client, batch: str) -> str | None:
    state = str(client.get(f"/batches/{batch}").json()["state"])
    return state if state in ("done", "failed") else None


@pytest.mark.slow
def test_files_of_the_inbox(tmp_path: Path) -> None:
    """What lay there at the start, and what comes later, is taken out of it and found."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "first.tsv").write_text("1\tlondon is big\n")
    with sidecar_client(settings_in(tmp_path, inbox=inbox)) as client:
        wait_until_ready(client)
        asked_until(lambda: pids_of(client, "london") or None)
        (inbox / ".second").write_text(json.dumps(PARIS))
        (inbox / ".second").rename(inbox / "second.jsonl")
        asked_until(lambda: pids_of(client, "london")[1:] or None)
        assert [] == [*inbox.iterdir()]


def test_a_collection_with_tenants_is_served(tmp_path: Path) -> None:
    """The sidecar is ready, and a search names its tenant."""
    place = tmp_path / "store"
    rows = [Passage(name, "a city", {"org": name}) for name in ("a", "b")]
    ingest_passages(rows, place, encoder=HashingEncoder())
    set_tenant_field(place, "msmarco", "org")
    with sidecar_client(settings_in(tmp_path, str(place))) as client:
        wait_until_ready(client)
        assert ["a"] == pids_of(client, "city", tenant="a")
        assert 422 == client.post("/search", json={"query": "city"}).status_code
