"""V5: `check` finds what other programs and interrupted processes left, and repairs it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msmarco_qdrant.collection import replicas
from msmarco_qdrant.collection.check import CheckReport, check_collection
from msmarco_qdrant.core.collection_types import PointBatch, SparseVector
from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import CollectionNotFoundError, StoreInUseError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.migration_locks import this_process
from msmarco_qdrant.stores.payload import payload_of, point_id
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.collection.test_replicas import AT_ONCE, fail_without
from tests.engines import new_store
from tests.loopback import LoopbackCluster, LoopbackServer
from tests.loopback.conftest import client_of

SLOW = [pytest.param(engine, marks=pytest.mark.slow) for engine in ("loopback", "edge")]
ROWS = [Passage(pid, f"text {pid}", {"n": n}) for n, pid in enumerate([*"0123456789", "a", "b"])]


@pytest.fixture(params=["memory", *SLOW])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store with twelve passages."""
    with new_store(request.param, tmp_path) as opened:
        ingest_passages(ROWS, opened, encoder=HashingEncoder(), optimize=False)
        yield opened


def kinds(report: CheckReport) -> dict[str, tuple[int, int]]:
    """Count and repaired ones of each kind."""
    return {found.kind: (found.count, found.repaired) for found in report.findings}


def damage(store: Store) -> None:
    """Do what other programs do to payloads."""
    things = store.collection("msmarco")
    whole = {number: payload_of(ROWS[number], 1) for number in range(12)}
    without = {
        number: {key: value for key, value in whole[number].items() if key != lost}
        for number, lost in ((1, "pid"), (2, "seq"), (3, "text"), (4, "meta"))
    }
    changes: dict[Any, dict[str, Any]] = {
        0: {"title": "of the dashboard"},
        **without,
        5: {**whole[5], "text": "edited"},
        6: {**whole[6], "meta": {"edited": 1}},
        7: {**whole[7], "pid": "other"},
        8: {**whole[8], "pid": 8, "extra": [1]},
        point_id("a"): {key: value for key, value in whole[10].items() if key != "pid"},
    }
    things.replace_payloads([*changes], [*changes.values()])
    things.flush()


DAMAGED = {
    "foreign-point": 3,
    "lost-pid": 2,
    "lost-content": 2,
    "lost-seq": 1,
    "wrong-text-digest": 1,
    "wrong-meta-digest": 1,
}


def test_v5_a_sound_collection_has_no_faults(store: Store) -> None:
    """Every point is read."""
    report = check_collection(store, "msmarco")
    assert (12, True, ()) == (report.points, report.is_sound, report.findings)
    with pytest.raises(CollectionNotFoundError):
        check_collection(store, "nothing")


def test_v5_faults_are_found_and_nothing_is_changed(store: Store) -> None:
    """With some examples, and what a repair does."""
    damage(store)
    fields = ("pid", "text", "meta", "text_digest", "meta_digest", "seq", "title")
    before = dict(store.collection("msmarco").scan(fields))
    report = check_collection(store, "msmarco")
    assert {kind: (count, 0) for kind, count in DAMAGED.items()} == kinds(report)
    assert before == dict(store.collection("msmarco").scan(fields))
    foreign = report.findings[0]
    assert "point 0 (no pid)" in foreign.examples
    assert ("removes them", True) == (foreign.repair, foreign.removes)


def test_v5_a_repair_removes_nothing_without_yes(store: Store) -> None:
    """What is certain is restored; what needs an ingest is marked for it."""
    damage(store)
    report = check_collection(store, "msmarco", repair=True)
    assert kinds(report) == {
        "foreign-point": (3, 0),
        "lost-pid": (2, 2),
        "lost-content": (2, 0),
        "lost-seq": (1, 1),
        "wrong-text-digest": (1, 0),
        "wrong-meta-digest": (1, 1),
    }
    things = store.collection("msmarco")
    assert 12 == things.info().points
    assert {"pid": "8", "extra": [1]} == things.retrieve([8], ("pid", "extra"))[8]
    assert {} == {
        k: v
        for k, v in kinds(check_collection(store, "msmarco")).items()
        if k in ("lost-pid", "lost-seq", "wrong-meta-digest")
    }


def test_v5_after_a_repair_an_ingest_restores_the_rest(store: Store) -> None:
    """Foreign points are removed, and every passage is as it was."""
    damage(store)
    report = check_collection(store, "msmarco", repair=True, remove=True)
    assert (3, 3) == kinds(report)["foreign-point"]
    assert 9 == store.collection("msmarco").info().points
    ingested = ingest_passages(ROWS, store, encoder=HashingEncoder(), optimize=False)
    assert (7, 5) == (ingested.written, ingested.unchanged)
    assert check_collection(store, "msmarco").is_sound


def test_v5_a_point_that_is_written_during_the_check_stays(tmp_path: Path) -> None:
    """A repair and a removal apply to what was read, and to nothing newer."""
    with new_store("memory", tmp_path) as store:
        ingest_passages(ROWS, store, encoder=HashingEncoder(), optimize=False)
        damage(store)
        live = store.collection("msmarco")
        admin = type(store.admin_collection("msmarco"))
        original = admin.dense_vectors

        def heal(self: Any, *arguments: Any) -> Any:
            """Another client writes everything again between the read and the repair."""
            found = original(self, *arguments)
            live.replace_payloads([7], [payload_of(ROWS[7], 2)])
            ingest_passages(ROWS, store, encoder=HashingEncoder(), optimize=False)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(admin, "dense_vectors", heal)
            check_collection(store, "msmarco", repair=True, remove=True)
        assert 12 == live.info().points
        report = check_collection(store, "msmarco")
        assert set(kinds(report)) <= {"lost-content", "wrong-text-digest"}


def test_v5_every_fault_of_a_point_is_repaired_at_once(tmp_path: Path) -> None:
    """Another program took its pid, its seq and its meta_digest; a second check finds nothing."""
    with new_store("memory", tmp_path) as store:
        ingest_passages(ROWS, store, encoder=HashingEncoder(), optimize=False)
        payload = payload_of(ROWS[1], 1)
        left = {name: payload[name] for name in ("text", "meta", "text_digest")}
        store.collection("msmarco").replace_payloads([1], [left])
        report = check_collection(store, "msmarco", repair=True)
        assert report.is_sound
        assert {"lost-pid", "lost-seq", "wrong-meta-digest"} == {*kinds(report)}
        assert check_collection(store, "msmarco").is_sound


@pytest.mark.parametrize(
    ("vector", "problem"),
    [(None, "no vector of the model"), (np.nan, "not finite"), (0.0, "length 0 instead of 1")],
)
def test_v5_bad_vectors_are_found(vector: float | None, problem: str, tmp_path: Path) -> None:
    """And the passages marked, so that an ingest encodes them again."""
    with new_store("memory", tmp_path) as store:
        ingest_passages(ROWS, store, encoder=HashingEncoder(), optimize=False)
        admin = type(store.admin_collection("msmarco"))
        original = admin.dense_vectors

        def broken(self: Any, *arguments: Any) -> Any:
            """The vectors of an engine that stores anything: local mode refuses such ones."""
            found = dict(original(self, *arguments))
            found.pop(3)
            return found if vector is None else {**found, 3: [vector] * 64}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(admin, "dense_vectors", broken)
            report = check_collection(store, "msmarco", repair=True)
        (found,) = report.findings
        assert ("bad-vector", (f"pid '3' ({problem})",)) == (found.kind, found.examples)
        assert 1 == ingest_passages(ROWS, store, encoder=HashingEncoder(), optimize=False).written


def test_v5_a_float_in_meta_is_not_a_fault(store: Store) -> None:
    """An engine may change its last digit."""
    rows = [Passage("f", "text", {"x": [{"y": 0.1 + 0.2}]})]
    ingest_passages(rows, store, encoder=HashingEncoder(), optimize=False)
    payload = payload_of(rows[0], 1)
    store.collection("msmarco").replace_payloads(
        [point_id("f")], [{**payload, "meta": {"x": [{"y": 0.3}]}}]
    )
    assert check_collection(store, "msmarco").is_sound


# ---- around the points -----------------------------------------------------------------------


def lock(store: Store, **changes: Any) -> LockHolder:
    """Hold the lock of migrations as another process."""
    holder = replace(LockHolder(token="t0ken", **this_process()), **changes)  # noqa: S106
    return store.migration_locks.acquire("msmarco", holder)


def test_v5_a_lock_is_never_released(store: Store) -> None:
    """Another container of the same host name may run the process; `migrate unlock` releases it."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    held = lock(store, pid=ended.pid)
    (found,) = check_collection(store, "msmarco").findings
    assert ("lock", 0) == (found.kind, found.repaired)
    assert f"process {held.pid} on {held.host} since {held.since}" in found.problem
    assert "`msmarco-qdrant migrate unlock --token t0ken " in found.advice
    with pytest.raises(StoreInUseError, match="migrate unlock --token t0ken "):
        check_collection(store, "msmarco", repair=True)
    assert held == store.migration_locks.holder("msmarco")
    store.migration_locks.release("msmarco", held.token)
    lock(store)
    assert check_collection(store, "msmarco").is_sound


def test_v5_a_lock_of_another_machine_is_only_told(store: Store) -> None:
    """With its age, and the command that releases it."""
    lock(store, host="other", since="2026-01-02T03:04:05Z")
    (found,) = check_collection(store, "msmarco").findings
    assert "since 2026-01-02T03:04:05Z" in found.problem
    expected = "`msmarco-qdrant migrate unlock --token t0ken --collection msmarco --store "
    assert expected in found.advice
    assert store.migration_locks.holder("msmarco") is not None


def test_v5_leftovers_are_dropped_only_with_yes(store: Store) -> None:
    """An empty collection without metadata; one with points is only told."""
    spec = store.collection("msmarco").spec()
    for physical in ("msmarco__0007", "msmarco__0008"):
        store.create_collection(physical, spec)
    batch = PointBatch(
        spec.dense, [1], np.ones((1, 64), np.float32), [SparseVector([1], [1.0])], [{}]
    )
    store.collection("msmarco__0008").upsert(batch)
    report = check_collection(store, "msmarco", repair=True)
    assert {"leftover": (1, 0), "unreadable": (1, 0)} == kinds(report)
    report = check_collection(store, "msmarco", repair=True, remove=True)
    assert {"leftover": (1, 1), "unreadable": (1, 0)} == kinds(report)
    assert ["msmarco__0001", "msmarco__0008"] == [
        name for name in store.physical_names() if name.startswith("msmarco__")
    ]


@pytest.mark.parametrize("engine", ["loopback", pytest.param("edge", marks=pytest.mark.slow)])
def test_v5_a_lost_index_is_created_again(engine: str, tmp_path: Path) -> None:
    """Of `seq`, which this package needs itself; foreign points are found without it."""
    with new_store(engine, tmp_path) as store:
        ingest_passages(ROWS, store, encoder=HashingEncoder(), optimize=False)
        store.admin_collection("msmarco").drop_payload_index("seq")
        damage(store)
        report = check_collection(store, "msmarco", repair=True, remove=True)
        assert (1, 1) == kinds(report)["missing-index"]
        assert (3, 3) == kinds(report)["foreign-point"]
        assert "missing-index" not in kinds(check_collection(store, "msmarco"))


def test_v5_a_missing_alias_is_told_with_its_command(server: LoopbackServer) -> None:
    """As after the restore of a snapshot."""
    with closing(open_store(server.url)) as store:
        ingest_passages(ROWS, store, encoder=HashingEncoder(), optimize=False)
        with closing(client_of(server)) as client:
            from qdrant_client import models

            delete = models.DeleteAlias(alias_name="msmarco")
            client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=delete)])
        report = check_collection(store, "msmarco")
        (found,) = report.findings
        assert ("missing-alias", None) == (found.kind, report.physical)
        assert f"`msmarco-qdrant migrate link msmarco --store {server.url}`" in found.advice


def test_v5_an_alias_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    """Somebody removed the collection from an Edge directory's catalog."""
    with new_store("edge", tmp_path) as store:
        ingest_passages(ROWS, store, encoder=HashingEncoder(), optimize=False)
    catalog = tmp_path / "store" / "store.json"
    value = json.loads(catalog.read_text())
    value["collections"] = {}
    catalog.write_text(json.dumps(value))
    with closing(open_store(tmp_path / "store")) as store:
        (found,) = check_collection(store, "msmarco").findings
        assert ("dangling-alias", "restore a backup") == (found.kind, found.advice)


@pytest.mark.slow
def test_v5_replicas_that_differ_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a write that one node missed; only with --yes, as a repair may remove points."""
    monkeypatch.setattr(replicas, "IN_FLIGHT_S", 0.0)
    with LoopbackCluster(3, replication=2, shards=1, write_consistency_factor=2) as cluster:
        ingest_passages(ROWS, cluster.url, encoder=HashingEncoder(), connection=AT_ONCE)
        changed = [replace(ROWS[0], text="changed"), Passage("new", "text")]
        fail_without(
            cluster,
            1,
            lambda: ingest_passages(
                changed, cluster.url, encoder=HashingEncoder(), connection=AT_ONCE
            ),
        )
        with closing(open_store(cluster.url, connection=AT_ONCE)) as store:
            report = check_collection(store, "msmarco", repair=True)
            assert (2, 0) == kinds(report)["differing-replicas"]
            report = check_collection(store, "msmarco", repair=True, remove=True)
            assert (2, 2) == kinds(report)["differing-replicas"]
            assert check_collection(store, "msmarco").is_sound


# ---- the command -----------------------------------------------------------------------------


@pytest.mark.slow
def test_v5_the_command_exits_with_1_while_faults_are_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As text and as JSON; --yes needs --repair."""
    place = str(tmp_path / "store")
    ingest_passages(ROWS, place, encoder=HashingEncoder(), optimize=False)
    assert (0, "no fault found") == (
        (done := command("check", "msmarco", "--store", place)).status,
        done.out.splitlines()[-1],
    )
    with closing(open_store(place)) as store:
        damage(store)
    done = command("check", "msmarco", "--store", place)
    assert 1 == done.status
    assert "foreign-point: 3 points are not passages, such as point 0 (no pid)" in done.out
    assert "--repair --yes removes them" in done.out
    assert 2 == command("check", "msmarco", "--store", place, "--yes").status
    with caplog.at_level(logging.WARNING):
        done = command("check", "msmarco", "--store", place, "--repair", "--yes", "--json")
    value = json.loads(done.out)
    assert (1, False, 12) == (done.status, value["is_sound"], value["points"])
    ingest_passages(ROWS, place, encoder=HashingEncoder(), optimize=False)
    assert 0 == command("check", "msmarco", "--store", place).status
