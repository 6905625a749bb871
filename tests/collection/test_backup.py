"""Backups of each engine restored into each, and what is refused (V4)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.collection import create as create_module
from msmarco_qdrant.collection import restore as restore_module
from msmarco_qdrant.collection.backup import backup_collection
from msmarco_qdrant.collection.backup_manifest import check_files, data_path, read_manifest
from msmarco_qdrant.collection.generations import physical_collections
from msmarco_qdrant.collection.restore import restore_collection
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import (
    MsmarcoQdrantError,
    OutputError,
    SchemaError,
    SourceError,
    StoreError,
    StoreInUseError,
    StoreUnavailableError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.status import unlock_migrations
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.edge import snapshots
from msmarco_qdrant.stores.server.client import ServerClient
from tests.backups import (
    ENCODER,
    answers,
    check_same_points,
    description,
    fill,
    many_passages,
    points,
)
from tests.engines import ENGINES_MEMORY_FIRST, another_handle, new_store

QUICK = [("memory", "memory"), ("loopback", "memory"), ("memory", "loopback")]
SLOW = [
    ("edge", "edge"),
    ("edge", "loopback"),
    ("edge", "memory"),
    ("loopback", "edge"),
    ("memory", "edge"),
]
PAIRS = [*QUICK, *(pytest.param(pair, marks=pytest.mark.slow) for pair in SLOW)]


@pytest.fixture
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Two stores of the engines in the parameters."""
    with ExitStack() as stack:
        source, target = (
            stack.enter_context(new_store(engine, tmp_path / f"store {number}"))
            for number, engine in enumerate(request.param)
        )
        yield source, target


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A backup of 5 passages in memory."""
    with new_store("memory", tmp_path) as store:
        fill(store, "films", many_passages(5))
        backup_collection(store, "films", tmp_path / "saved")
    return tmp_path / "saved"


def portable_state(store: Store, name: str) -> Sequence[object]:
    """What every engine has in common."""
    metadata, spec, _ = description(store, name)
    storage = replace(spec.storage, quantization="none", on_disk=False)
    return [metadata, replace(spec, hnsw=None, storage=storage, payload_indexes={})]


@pytest.mark.slow
@pytest.mark.parametrize("two", PAIRS, indirect=True)
def test_v4_a_portable_backup_restores_into_every_engine(
    two: tuple[Store, Store], tmp_path: Path
) -> None:
    """Points, settings, migrations and answers are as before, also under another name."""
    source, target = two
    fill(source, "films", many_passages(150))
    report = backup_collection(source, "films", tmp_path / "saved", portable=True)
    assert ("portable", 150) == (report.kind, report.passages)

    restored = restore_collection(target, tmp_path / "saved", name="copy")
    assert ("copy", "copy__0001", 150) == (
        restored.collection,
        restored.physical,
        restored.passages,
    )
    assert portable_state(source, "films") == portable_state(target, "copy")
    if source.capabilities.ann and target.capabilities.ann:
        assert description(source, "films") == description(target, "copy")
    check_same_points(source, "films", target, "copy")
    ingest_passages([Passage("new", "new")], target, collection="copy", encoder=ENCODER)
    assert 151 == target.collection("copy").info().points


@pytest.mark.parametrize(
    "two",
    [
        pytest.param(("edge", "edge"), marks=pytest.mark.slow),
        pytest.param(("edge", "memory"), marks=pytest.mark.slow),
        pytest.param(("edge", "loopback"), marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_v4_a_copy_of_edge_restores(two: tuple[Store, Store], tmp_path: Path) -> None:
    """The files with their indexes on Edge; on other engines, the points in them."""
    source, target = two
    fill(source, "films", many_passages(300))
    report = backup_collection(source, "films", tmp_path / "saved")
    assert ("edge", 300) == (report.kind, report.passages)
    restored = restore_collection(target, tmp_path / "saved")
    assert ("films__0001", 300) == (restored.physical, restored.passages)
    check_same_points(source, "films", target, "films")
    assert portable_state(source, "films") == portable_state(target, "films")
    if target.capabilities.engine == "Edge":
        assert description(source, "films") == description(target, "films")
        assert points(source, "films") == points(target, "films")
        assert answers(source, "films") == answers(target, "films")
        assert source.collection("films").info() == target.collection("films").info()


@pytest.mark.slow
def test_v4_a_copy_of_edge_is_equal(tmp_path: Path) -> None:
    """Without an index: in the same store, under another name."""
    with closing(open_store(tmp_path / "store", create=True)) as store:
        fill(store, "films", many_passages(60), optimize=False)
        assert "edge" == backup_collection(store, "films", tmp_path / "saved").kind
        assert "copy__0001" == restore_collection(store, tmp_path / "saved", name="copy").physical
        assert description(store, "films") == description(store, "copy")
        assert points(store, "films") == points(store, "copy")


@pytest.mark.slow
def test_v4_a_copy_of_edge_is_one_moment(tmp_path: Path) -> None:
    """It holds everything durable at its start, and what a writer added since in order."""
    writes, stop = many_passages(3000), threading.Event()
    with closing(open_store(tmp_path / "store", create=True)) as store:
        fill(store, "films", writes[:500], optimize=False)

        def write() -> None:
            for start in range(500, len(writes), 20):
                if stop.is_set():
                    return
                batch = writes[start : start + 20]
                ingest_passages(batch, store, collection="films", encoder=ENCODER, optimize=False)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(3):
                least = store.collection("films").info().points
                report = backup_collection(store, "films", tmp_path / f"saved {number}")
                assert report.passages >= least
        finally:
            stop.set()
            writer.join()
        whole = points(store, "films")
    for number in range(3):
        with closing(open_store(tmp_path / f"other {number}", create=True)) as other:
            restore_collection(other, tmp_path / f"saved {number}")
            found = points(other, "films")
        newest = max(payload["seq"] for _, _, payload in found.values())
        expected = {i: p for i, p in whole.items() if p[2]["seq"] <= newest}
        assert expected == found


# ---- what is refused -----------------------------------------------------------------------


def test_v4_a_changed_byte_is_found_in_each_file(saved: Path, tmp_path: Path) -> None:
    """As are a missing and a cut file; the message names it, and nothing is restored."""
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert {"manifest.json", "points-000001.npz"} == {path.name for path in files}
    for path in files:
        whole = path.read_bytes()
        for damaged in (
            *(
                whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
                for at in range(0, len(whole), 1 + len(whole) // 12)
            ),
            whole[:-1],
            whole + b"\n" if path.suffix == ".npz" else b"",
        ):
            path.write_bytes(damaged)
            with new_store("memory", tmp_path) as store:
                with pytest.raises(SourceError, match=path.name):
                    restore_collection(store, saved)
                assert [] == list(store.physical_names())
        path.unlink()
        with new_store("memory", tmp_path) as store, pytest.raises(SourceError, match=path.name):
            restore_collection(store, saved)
        path.write_bytes(whole)
    with new_store("memory", tmp_path) as store:
        assert 5 == restore_collection(store, saved).passages


@pytest.mark.slow
def test_v4_a_changed_byte_is_found_in_each_file_of_edge(tmp_path: Path) -> None:
    """Also in those that are mostly zeros."""
    with closing(open_store(tmp_path / "store", create=True)) as store:
        fill(store, "films", many_passages(20), optimize=False)
        backup_collection(store, "films", tmp_path / "saved")
    files = read_manifest(tmp_path / "saved").files
    assert len(files) > 20
    for file in files:
        path = data_path(tmp_path / "saved", file)
        with path.open("r+b") as opened:
            opened.seek(file.bytes // 2)
            found = opened.read(1) or b"?"
            opened.seek(file.bytes // 2)
            opened.write(bytes([found[0] ^ 1]))
        with pytest.raises(SourceError, match=path.name):
            check_files(tmp_path / "saved", [file])


@pytest.mark.slow
def test_v4_a_disk_that_fills_up_ends_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one error; the directory is not a backup, and is used again when there is space."""
    with closing(open_store(tmp_path / "store", create=True)) as store:
        fill(store, "films", many_passages(20), optimize=False)
        with monkeypatch.context() as patch:
            patch.setattr(snapshots, "copy_sparse", no_space)
            with pytest.raises(OutputError, match=r"cannot write .*saved.*No space left"):
                backup_collection(store, "films", tmp_path / "saved")
        with pytest.raises(SourceError, match="interrupted backup"):
            restore_collection(store, tmp_path / "saved", name="copy")
        assert 20 == backup_collection(store, "films", tmp_path / "saved").passages
        with monkeypatch.context() as patch:
            patch.setattr(snapshots, "copy_sparse", no_space)
            with pytest.raises(StoreUnavailableError, match="No space left"):
                restore_collection(store, tmp_path / "saved", name="copy")
        assert ["films__0001"] == list(store.physical_names())


def no_space(_source: Path, _target: Path) -> None:
    """Fail as on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_v4_directories_that_are_no_backup_are_refused(saved: Path, tmp_path: Path) -> None:
    """A missing one, another one, an unfinished one, and one of another version."""
    with new_store("memory", tmp_path) as store:
        for folder in (tmp_path / "missing", tmp_path):
            with pytest.raises(SourceError, match=r"backup NAME --out DIR.*got none"):
                restore_collection(store, folder)
        manifest = saved / "manifest.json"
        value = json.loads(manifest.read_text())
        manifest.write_text(rewritten({**value, "format": 2}))
        with pytest.raises(SourceError, match=r"has format 2.*reads format 1"):
            restore_collection(store, saved)
        outside = {**value["files"][0], "path": "../../x"}
        manifest.write_text(rewritten({**value, "files": [outside]}))
        with pytest.raises(SourceError, match="not in it"):
            restore_collection(store, saved)
        manifest.unlink()
        (saved / "unfinished").write_text("")
        with pytest.raises(SourceError, match="interrupted backup"):
            restore_collection(store, saved)


def rewritten(value: dict[str, object]) -> str:
    """A manifest with a right checksum, as another version writes it."""
    from msmarco_qdrant.collection.backup_manifest import _digest

    kept = {name: field for name, field in value.items() if name != "sha256"}
    return json.dumps({**kept, "sha256": _digest(kept)})


def test_v4_only_a_new_or_unfinished_directory_is_written_into(saved: Path, tmp_path: Path) -> None:
    """A backup and other files stay; an interrupted backup is replaced."""
    with new_store("memory", tmp_path) as store:
        fill(store, "films", many_passages(7))
        with pytest.raises(OutputError, match="contains a backup already"):
            backup_collection(store, "films", saved)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "file").write_text("x")
        with pytest.raises(OutputError, match=r"new or empty, got .*other with file"):
            backup_collection(store, "films", tmp_path / "other")
        with pytest.raises(OutputError, match="file"):
            backup_collection(store, "films", tmp_path / "other" / "file")
        (saved / "manifest.json").unlink()
        (saved / "unfinished").write_text("killed")
        assert 7 == backup_collection(store, "films", saved).passages
        assert ["data", "manifest.json"] == sorted(path.name for path in saved.iterdir())
        with pytest.raises(StoreError, match="no collection 'books'"):
            backup_collection(store, "books", tmp_path / "books")
        assert not (tmp_path / "books").exists()


def test_v4_an_existing_name_is_refused(saved: Path, tmp_path: Path) -> None:
    """With and without its alias; another name is accepted, a physical one is not."""
    with new_store("memory", tmp_path) as store:
        fill(store, "films", many_passages(3))
        with pytest.raises(SchemaError, match="--name films-restored"):
            restore_collection(store, saved)
        store.remove_alias("films")
        with pytest.raises(StoreError, match="migrate link films"):
            restore_collection(store, saved)
        with pytest.raises(UsageError, match="physical collections"):
            restore_collection(store, saved, name="films__0002")
        assert "new__0001" == restore_collection(store, saved, name="new").physical


def test_v4_a_failed_restore_leaves_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails, and another number of points than expected counts as failed."""
    manifest = replace(read_manifest(saved), passages=6)
    monkeypatch.setattr(restore_module, "read_manifest", lambda _folder: manifest)
    with new_store("memory", tmp_path) as store:
        with pytest.raises(StoreError, match="must have 6 passages after the restore, got 5"):
            restore_collection(store, saved)
        assert ([], {}) == (list(store.physical_names()), store.aliases())


@pytest.mark.slow
def test_v4_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the backup and for the restore of a copy of Edge."""
    with closing(open_store(tmp_path / "store", create=True)) as store:
        fill(store, "films", many_passages(20), optimize=False)
        backup_collection(store, "films", tmp_path / "saved")
        usage = (10**12, 10**12 - 10, 10)
        full = type("Usage", (), {"total": usage[0], "used": usage[1], "free": usage[2]})
        monkeypatch.setattr(shutil, "disk_usage", lambda _place: full)
        for use in (
            lambda: backup_collection(store, "films", tmp_path / "again"),
            lambda: restore_collection(store, tmp_path / "saved", name="new"),
        ):
            with pytest.raises(StoreUnavailableError, match="MiB of free disk space"):
                use()
        assert not (tmp_path / "again" / "manifest.json").exists()
        assert ["films__0001"] == list(store.physical_names())
        assert not (tmp_path / "store" / "restoring").exists()


def test_v4_an_unfinished_reembedding_is_not_backed_up(tmp_path: Path) -> None:
    """Its collection may lack the last passages of the former one."""
    with new_store("memory", tmp_path) as store:
        fill(store, "films", many_passages(3))
        metadata = store.metadata("films")
        store.put_metadata("films", replace(metadata, copied_from="films__0000"))
        with pytest.raises(StoreError, match="re-embedding of 'films' is not finished"):
            backup_collection(store, "films", tmp_path / "saved")


def test_v4_blocks_of_zeros_take_no_space(tmp_path: Path) -> None:
    """A copied file is equal, also at its end."""
    (tmp_path / "a").write_bytes(bytes(2**20) + b"x" + bytes(2**20 + 5))
    snapshots.copy_sparse(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "b").stat().st_blocks * 512 < 2**20
    with pytest.raises(FileExistsError):
        snapshots.copy_sparse(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_v4_another_process_is_told_how(tmp_path: Path) -> None:
    """A directory that another process uses is refused, with what that process can do."""
    import multiprocessing

    with closing(open_store(tmp_path / "store", create=True)) as store:
        fill(store, "films", many_passages(3), optimize=False)
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            text = pool.apply(_backup_text, (str(tmp_path / "store"), str(tmp_path / "saved")))
    assert "in use by process" in text
    assert "backup_collection(store, 'films', ...)" in text


def _backup_text(store: str, folder: str) -> str:
    try:
        backup_collection(store, "films", folder)
    except MsmarcoQdrantError as exc:
        return str(exc)
    return ""


# ---- other clients -------------------------------------------------------------------------


def during(
    monkeypatch: pytest.MonkeyPatch, method: str, action: Callable[[], object], *, first: bool
) -> None:
    """Call an action once, before or after a method of a restore."""
    real, actions = getattr(restore_module._Restore, method), [action]

    def call(*args: Any) -> Any:
        if first and actions:
            actions.pop()()
        result = real(*args)
        if not first and actions:
            actions.pop()()
        return result

    monkeypatch.setattr(restore_module._Restore, method, call)


@pytest.mark.parametrize("engine", ENGINES_MEMORY_FIRST)
def test_v4_an_ingest_during_a_restore_is_refused(
    engine: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the creation on, also if it looked before that; nothing acknowledged is lost."""
    with new_store(engine, tmp_path) as store, another_handle(store) as other:

        def ingest() -> None:
            ingest_passages([Passage("new", "new")], other, collection="films", encoder=ENCODER)

        def refused() -> None:
            with pytest.raises(SchemaError, match=r"into films__0001.*run the same restore again"):
                ingest()
            if engine == "loopback":  # elsewhere "look, then create" is under `lock`
                with monkeypatch.context() as patch:
                    patch.setattr(create_module, "find_unlinked", lambda *_: [])
                    with pytest.raises(SchemaError, match="into films__0001: wait"):
                        ingest()

        during(monkeypatch, "_create", refused, first=False)
        assert 5 == restore_collection(store, saved).passages
        assert {"films": "films__0001"} == other.aliases()
        ingest()
        assert 6 == store.collection("films").info().points


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("engine", ENGINES_MEMORY_FIRST)
def test_v4_a_restore_drops_only_its_own(
    engine: str, is_linked: bool, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client creates that collection first; it stays."""
    spec = read_manifest(saved).spec
    with new_store(engine, tmp_path) as store, another_handle(store) as other:

        def create() -> None:
            if is_linked:
                ingest_passages([Passage("new", "new")], other, collection="films", encoder=ENCODER)
            else:
                other.create_collection("films__0001", spec)

        during(monkeypatch, "_create", create, first=True)
        with pytest.raises(SchemaError, match="films__0001' exists already"):
            restore_collection(store, saved)
        assert ["films__0001"] == list(physical_collections(store, "films"))
        if is_linked:
            assert 1 == store.collection("films").info().points
        else:
            assert "films__0002" == restore_collection(store, saved).physical


@pytest.mark.parametrize("engine", ENGINES_MEMORY_FIRST)
def test_v4_of_two_restores_the_second_is_refused(
    engine: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first runs, and it drops nothing of that; a killed one's lock can be released."""
    with new_store(engine, tmp_path) as store, another_handle(store) as other:

        def refused() -> None:
            with pytest.raises(StoreInUseError, match=r"migrated or restored by .*migrate unlock"):
                restore_collection(other, saved)
            with pytest.raises(StoreInUseError, match="not wrong"):
                unlock_migrations(other, "films", "wrong")

        during(monkeypatch, "_create", refused, first=False)
        assert 5 == restore_collection(store, saved).passages
        with pytest.raises(MsmarcoQdrantError, match="no collection 'things'"):
            unlock_migrations(other, "things", "wrong")


# ---- interruptions -------------------------------------------------------------------------


class Stops:
    """Lets a number of a store's requests pass; then the store is gone until `limit` is None."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limit: int | None = None
        self.count = 0
        real = ServerClient.call_within

        def call_within(*args: Any) -> Any:
            self.count += 1
            if self.limit is not None and self.count > self.limit:
                raise StoreUnavailableError("gone")
            return real(*args)

        monkeypatch.setattr(ServerClient, "call_within", call_within)

    def use(self, limit: int | None, function: Callable[[], object]) -> bool:
        """Call a function; return whether it came to its end."""
        self.limit, self.count = limit, 0
        try:
            function()
        except StoreUnavailableError:
            return False
        finally:
            self.limit = None
        return True


@pytest.mark.slow
def test_v4_a_restore_that_stops_anywhere_is_never_half_there(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each request in turn, without any cleanup; the same call then completes it."""
    stops, number = Stops(monkeypatch), 0
    is_whole = False
    with new_store("memory", tmp_path) as store:
        while not is_whole:
            name = f"copy{number}"
            load = partial(restore_collection, store, saved, name=name)
            is_whole = stops.use(number, load)
            if name in store.aliases():
                assert 5 == store.collection(name).info().points
            else:
                with pytest.raises(
                    StoreError,
                    match=f"no collection '{name}'|same restore again|migrate link {name}",
                ):
                    store.collection(name)
            live = store.aliases().get(name)
            if live is None or store.metadata(live).restoring is not None:
                assert 5 == load().passages
            assert [store.aliases()[name]] == list(physical_collections(store, name))
            assert store.metadata(name).restoring is None
            number += 1
    assert number > 10


def test_v4_a_backup_that_stops_anywhere_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each request in turn; the same call then completes it."""
    stops, number = Stops(monkeypatch), 0
    is_whole = False
    with new_store("memory", tmp_path) as store:
        fill(store, "films", many_passages(5))
        while not is_whole:
            folder = tmp_path / f"saved {number}"
            save = partial(backup_collection, store, "films", folder)
            is_whole = stops.use(number, save)
            if not is_whole:
                with pytest.raises(SourceError):
                    restore_collection(store, folder, name="copy")
                assert 5 == save().passages
            number += 1
    assert number > 5
