"""Migrations of a user's folder: recorded with folder and checksum, edited ones reported (R2)."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.collection import migration as migration_files
from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.core.metadata_types import CollectionMetadata, UserMigration
from msmarco_qdrant.errors import MigrationError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.runner import migrate_collection
from msmarco_qdrant.migrate.status import migration_status
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.metadata import metadata_from_json, metadata_to_json
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.migrate.test_runner import OWN, ran, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two migrations."""
    made = tmp_path / "changes"
    made.mkdir()
    write(made, "0001_a")
    write(made, "0003_c")
    return made


def forget_records(store: Store) -> None:
    """Make the metadata of 'films' that of an earlier version."""
    store.put_metadata("films", replace(store.metadata("films"), user_migrations=None))


def test_r2_an_applied_migration_is_recorded_with_folder_and_checksum(
    store: Store, folder: Path
) -> None:
    """Next to the package's own, and it is neither pending nor unknown without the folder."""
    migrate_collection(store, "films", directory=folder)
    users = store.metadata("films").user_migrations or ()
    assert [("0001_a", "changes"), ("0003_c", "changes")] == [
        (one.name, one.folder) for one in users
    ]
    assert 2 == len({one.checksum for one in users} - {""})
    for directory in (None, folder):
        status = migration_status(store, "films", directory=directory)
        assert status.is_current
        assert (users, (*OWN, "0001_a", "0003_c")) == (status.users, status.applied)
    assert [] == migrate_collection(store, "films")


def test_r2_an_edited_file_is_reported_and_not_applied_again(
    store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the status with the folder; a migration logs it. Other line ends are no edit."""
    migrate_collection(store, "films", directory=folder)
    path = folder / "0001_a.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert migration_status(store, "films", directory=folder).is_current
    path.write_text(path.read_text() + "\n# edited\n")
    status = migration_status(store, "films", directory=folder)
    assert (("0001_a",), False) == (status.edited, status.is_current)
    assert migration_status(store, "films").is_current
    with caplog.at_level(logging.WARNING):
        assert [] == migrate_collection(store, "films", directory=folder)
    assert ["edited since it was applied to 'films', and not applied again: 0001_a"] == [
        message.partition(";")[0] for message in caplog.messages
    ]
    assert ["0001_a", "0003_c"] == ran(folder)


def test_r2_a_missing_file_is_unknown_in_its_own_folder_only(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    """Another folder is another source."""
    migrate_collection(store, "films", directory=folder)
    (folder / "0003_c.py").unlink()
    assert ("0003_c",) == migration_status(store, "films", directory=folder).unknown
    with pytest.raises(MigrationError, match="unknown migrations: 0003_c"):
        migrate_collection(store, "films", directory=folder)
    other = tmp_path / "others"
    other.mkdir()
    write(other, "0001_of_others")
    assert ["0001_of_others"] == [
        step.name for step in migrate_collection(store, "films", directory=other)
    ]
    assert migration_status(store, "films").is_current


def test_r2_a_ledger_of_before_is_read_and_completed(store: Store, folder: Path) -> None:
    """Its names are a user's; the next run with the folder records folder and checksum."""
    migrate_collection(store, "films", directory=folder)
    recorded = store.metadata("films")
    forget_records(store)
    status = migration_status(store, "films")
    assert status.is_current
    assert (UserMigration("0001_a"), UserMigration("0003_c")) == status.users
    assert migration_status(store, "films", directory=folder).is_current
    assert [] == migrate_collection(store, "films", directory=folder)
    assert recorded == store.metadata("films")


def test_r2_a_ledger_of_before_with_a_missing_file(store: Store, folder: Path) -> None:
    """The folder must be complete, as before."""
    migrate_collection(store, "films", directory=folder)
    forget_records(store)
    (folder / "0001_a.py").unlink()
    assert ("0001_a",) == migration_status(store, "films", directory=folder).unknown


def test_r2_names_of_newer_code_stay_unknown(store: Store) -> None:
    """A newer version records what is a user's, so the rest is its own."""
    metadata = store.metadata("films")
    store.put_metadata("films", replace(metadata, migrations=(*OWN, "0003_of_tomorrow")))
    assert ("0003_of_tomorrow",) == migration_status(store, "films").unknown
    with pytest.raises(MigrationError, match="Upgrade this package"):
        migrate_collection(store, "films")


@pytest.mark.parametrize("users", [None, (), (UserMigration("0001_a", "changes", "00ff"),)])
def test_r2_records_survive_json(users: tuple[UserMigration, ...] | None) -> None:
    """Documents of an earlier version have none."""
    info = HashingEncoder().info
    metadata = CollectionMetadata(1, "0", info, Bm25Settings(), OWN, user_migrations=users)
    document: dict[str, Any] = json.loads(json.dumps(metadata_to_json(metadata)))
    if users is None:
        del document["user_migrations"]
    assert metadata == metadata_from_json(document, "films")


def test_r2_commands_show_the_folder_and_edited_files(tmp_path: Path, folder: Path) -> None:
    """`migrate check` fails with `--dir` only; `migrate status` shows both."""
    place = str(tmp_path / "store")
    ingest_passages([], place, encoder=HashingEncoder(), optimize=False)
    at = ("--store", place)
    there = ("--dir", str(folder))
    assert 0 == command("migrate", "up", *at, *there).status
    path = folder / "0003_c.py"
    path.write_text(path.read_text() + "# edited\n")
    assert (0, "nothing is pending\n") == command("migrate", "check", *at)[:2]
    done = command("migrate", "check", *at, *there)
    assert (1, True) == (done.status, done.out.startswith("edited: 0003_c: the file was edited"))
    shown = command("migrate", "status", *at, *there).out
    assert "your own    0001_a (changes), 0003_c (changes)\n" in shown
    assert "edited      0003_c: " in shown
    listed = json.loads(command("migrate", "status", *at, *there, "--json").out)
    assert (["0003_c"], 2) == (listed["edited"], len(listed["user_migrations"]))


@pytest.mark.slow
def test_r13_the_package_s_own_migrations_are_executed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the status is read; those of a user are read each time."""
    executed = []
    execute = migration_files._execute

    def counting(path: Path) -> Any:
        executed.append(path.stem)
        return execute(path)

    ingest_passages([], tmp_path / "store", encoder=HashingEncoder(), optimize=False)
    monkeypatch.setattr(migration_files, "_execute", counting)
    with closing(open_store(tmp_path / "store")) as store:
        for _ in range(3):
            assert migration_status(store, "msmarco").is_current
    assert [] == executed
