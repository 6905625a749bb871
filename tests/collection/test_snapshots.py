"""Backups by a server's own snapshots, over REST (V4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from grpc import StatusCode  # type: ignore[import-untyped]

from msmarco_qdrant.collection.backup import backup_collection
from msmarco_qdrant.collection.restore import restore_collection
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import (
    MsmarcoQdrantError,
    SourceError,
    StoreError,
    UnsupportedError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Connection, Store, open_store
from msmarco_qdrant.stores.server.snapshots import ServerSnapshots
from tests.backups import ENCODER, answers, description, fill, many_passages, points
from tests.engines import new_store
from tests.loopback import LoopbackServer, Refused
from tests.loopback.conftest import keys_of

SHORT = Connection(retry_s=0.2)


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A server whose gRPC port follows its REST port."""
    with LoopbackServer(adjacent=True) as running:
        yield running


@pytest.fixture
def store(server: LoopbackServer) -> Iterator[Store]:
    """A store on it with `films`, opened by its gRPC port."""
    with closing(open_store(server.url)) as opened:
        fill(opened, "films", many_passages(60))
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("url", ["url", "rest_url"])
def test_v4_a_snapshot_restores_all(
    server: LoopbackServer, store: Store, tmp_path: Path, url: str
) -> None:
    """Into another server, by either URL, also under another name; no snapshot is left behind."""
    with closing(open_store(getattr(server, url))) as opened:
        report = backup_collection(opened, "films", tmp_path / "saved")
    assert ("server", 60, 1) == (report.kind, report.passages, report.files)
    assert [] == [name for files in server.snapshots.files.values() for name in files]
    with LoopbackServer(adjacent=True) as other, closing(open_store(getattr(other, url))) as target:
        restored = restore_collection(target, tmp_path / "saved", name="copy")
        assert ("copy__0001", 60) == (restored.physical, restored.passages)
        assert description(store, "films") == description(target, "copy")
        assert points(store, "films") == points(target, "copy")
        assert answers(store, "films") == answers(target, "copy")
        assert (
            store.snapshots.settings("films__0001")  # replication, optimizers and all others
            == target.snapshots.settings("copy__0001")
        )
        ingest_passages([Passage("new", "x")], target, collection="copy", encoder=ENCODER)
        assert 61 == target.collection("copy").info().points


def test_v4_the_settings_of_a_server_survive_a_portable_backup(
    store: Store, tmp_path: Path
) -> None:
    """Those that other engines do not know, too."""
    backup_collection(store, "films", tmp_path / "saved", portable=True)
    with LoopbackServer() as other, closing(open_store(other.url)) as target:
        restore_collection(target, tmp_path / "saved")
        assert description(store, "films") == description(target, "films")
        assert store.snapshots.settings("films__0001") == target.snapshots.settings("films__0001")


@pytest.mark.slow
def test_v4_without_rest_a_backup_is_portable(
    server: LoopbackServer, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line has the reason."""
    server.rest_proxy.stop()
    report = backup_collection(store, "films", tmp_path / "saved")
    assert ("portable", 60) == (report.kind, report.passages)
    (warning,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert "this backup is portable, without indexes: a snapshot needs the REST" in warning


def test_v4_another_server_at_the_rest_port_is_not_used(
    server: LoopbackServer, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even with a collection of the same name."""
    port = server.rest_proxy.port
    server.rest_proxy.stop()
    with LoopbackServer() as other, closing(open_store(other.url)) as target:
        fill(target, "films", [Passage("1", "other")])
        other.rest_proxy.stop()
        other.rest_proxy.port = port
        other.stop()
        other.start()
        report = backup_collection(store, "films", tmp_path / "saved")
    assert ("portable", 60) == (report.kind, report.passages)
    assert "got another server" in caplog.text


def test_v4_another_server_at_the_rest_port_never_sees_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another version, at the port before that of a `grpc://` URL."""
    connection = Connection("key", retry_s=0)
    with LoopbackServer("key", "1.19.0", adjacent=True) as server, LoopbackServer() as other:
        other.stop()
        server.rest_proxy.stop()
        other.rest_proxy.port = server.rest_proxy.port
        other.start()
        seen = keys_of(other, monkeypatch)
        with closing(open_store(server.url, connection=connection)) as store:
            fill(store, "films", many_passages(3))
            report = backup_collection(store, "films", tmp_path / "saved")
    assert ("portable", [None]) == (report.kind, seen)


def test_v4_other_engines_cannot_read_a_snapshot(store: Store, tmp_path: Path) -> None:
    """The message names what to do; nothing is left."""
    backup_collection(store, "films", tmp_path / "saved")
    with new_store("memory", tmp_path) as memory:
        with pytest.raises(UnsupportedError, match=r"backup films --out DIR --portable"):
            restore_collection(memory, tmp_path / "saved")
        assert [] == list(memory.physical_names())


def test_v4_a_changed_snapshot_is_found(
    server: LoopbackServer, store: Store, tmp_path: Path
) -> None:
    """On the disk, and on its way from or to the server."""
    backup_collection(store, "films", tmp_path / "saved")
    (file,) = (tmp_path / "saved" / "data").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SourceError, match="was changed after it was written"):
        restore_collection(store, tmp_path / "saved", name="copy")
    snapshots = store.snapshots
    assert isinstance(snapshots, ServerSnapshots)
    with (
        snapshots._rest("films__0001") as rest,
        file.open("rb") as opened,
        pytest.raises(StoreError, match="checksum mismatch"),
    ):
        snapshots._call(lambda: rest._upload(opened, "0" * 64))

    def tamper(rpc: str, _number: int) -> None:
        if rpc == "Snapshots.download":
            kept = server.snapshots.files["films__0001"]
            kept.update({name: b"?" + content[1:] for name, content in kept.items()})

    server.faults.use(tamper)
    with pytest.raises(StoreError, match="was changed on its way"):
        backup_collection(store, "films", tmp_path / "again")


@pytest.mark.parametrize("rpc", ["create", "download", "delete"])
def test_v4_a_failed_snapshot_is_an_error_or_harmless(
    server: LoopbackServer, tmp_path: Path, rpc: str
) -> None:
    """A server that fails to delete its snapshot does not make the backup fail."""
    with closing(open_store(server.url, connection=SHORT)) as store:
        fill(store, "films", many_passages(5))
        server.faults.inject(
            Refused(StatusCode.INTERNAL, "disk full"), f"Snapshots.{rpc}", times=None
        )
        if rpc == "delete":
            assert 5 == backup_collection(store, "films", tmp_path / "saved").passages
            return
        with pytest.raises(MsmarcoQdrantError, match="disk full"):
            backup_collection(store, "films", tmp_path / "saved")
        assert not (tmp_path / "saved" / "manifest.json").exists()
        assert [] == [name for files in server.snapshots.files.values() for name in files]
