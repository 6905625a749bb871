"""`migrate`, as a person or a script uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from msmarco_qdrant.collection.migration import load_migrations
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.migration_locks import hold_lock
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command

INDEX = """
from msmarco_qdrant.operations import AddPayloadIndex

DESCRIPTION = "filters on the year by an index"
OPERATION = AddPayloadIndex("year", "integer")
"""
TEXTS = """
from msmarco_qdrant.operations import SetBm25

DESCRIPTION = "BM25 for short texts"
OPERATION = SetBm25(avg_len=6)
"""
WAITS = """
import sys

DESCRIPTION = "waits"

def up(store, plan):
    print("begun", flush=True)
    sys.stdin.read()
"""


@contextmanager
def waiting_command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process, in the middle of a migration that waits for standard input."""
    with subprocess.Popen(
        [sys.executable, "-m", "msmarco_qdrant", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "begun\n" == process.stdout.readline()
        yield process


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A user's own migrations: two."""
    made = tmp_path / "own"
    made.mkdir()
    (made / "0001_index_year.py").write_text(INDEX)
    (made / "0002_short_texts.py").write_text(TEXTS)
    return str(made)


def test_migrations_are_applied(filled: str, folder: str) -> None:
    """Status, a dry run, and `up`, which does nothing the second time."""
    place = ("--store", filled, "--dir", folder)
    status = command("migrate", "status", *place)
    assert (0, "") == (status.status, status.err)
    assert status.out == (
        f"collection  msmarco -> msmarco__0001 ({HashingEncoder().info.model})\n"
        "applied     0001_create_passages, 0002_payload_indexes\n"
        "pending     0001_index_year, 0002_short_texts\n"
    )
    dry = command("migrate", "up", *place, "--dry-run")
    assert (0, "") == (dry.status, dry.err)
    lines = dry.out.splitlines()
    assert "0001_index_year: filters on the year by an index" == lines[0]
    assert lines[1].startswith("  no index -> integer: 5 payloads are read")
    assert "0002_short_texts: BM25 for short texts" in lines[2:]
    assert status == command("migrate", "status", *place)

    done = command("migrate", "up", *place)
    assert (0, "applied: 0001_index_year, 0002_short_texts\n") == (done.status, done.out)
    assert dry.out == done.err
    assert (0, "nothing is pending\n", "") == command("migrate", "up", *place)
    assert "pending     none\n" in command("migrate", "status", *place).out
    info = command("info", "--store", filled).out
    assert "meta.year (integer)" in info
    assert "avg_len=6.0 english" in info
    names = "0001_create_passages, 0002_payload_indexes, 0001_index_year, 0002_short_texts"
    assert f"migrations  {names}" in info


def test_collection_of_older_code_has_one_pending(filled: str) -> None:
    """`check` reports it until `up` has recorded it."""
    with closing(open_store(filled)) as store:
        metadata = store.metadata("msmarco")
        store.put_metadata("msmarco", replace(metadata, migrations=("0001_create_passages",)))
    check = ("migrate", "check", "--store", filled)
    assert (1, "pending: 0002_payload_indexes\n", "") == command(*check)
    up = command("migrate", "up", "--store", filled)
    assert (0, "applied: 0002_payload_indexes\n") == (up.status, up.out)
    assert "almost nothing" in up.err
    assert (0, "nothing is pending\n", "") == command(*check)


def test_to_stops_in_between(filled: str, folder: str) -> None:
    """Later migrations stay pending."""
    done = command("migrate", "up", "--store", filled, "--dir", folder, "--to", "0001_index_year")
    assert (0, "applied: 0001_index_year\n") == (done.status, done.out)
    wrong = command("migrate", "up", "--store", filled, "--dir", folder, "--to", "1")
    assert 2 == wrong.status
    assert "1 is the number of 0001_create_passages and of 0001_index_year" in wrong.err


def test_check_is_for_scripts(filled: str, folder: str) -> None:
    """Status 0 when nothing is pending, else 1 with the names."""
    place = ("--store", filled, "--dir", folder)
    assert (1, "pending: 0001_index_year, 0002_short_texts\n", "") == command(
        "migrate", "check", *place
    )
    assert (0, "nothing is pending\n", "") == command("migrate", "check", "--store", filled)
    command("migrate", "up", *place)
    assert (0, "nothing is pending\n", "") == command("migrate", "check", *place)
    assert (0, "nothing is pending\n", "") == command("migrate", "check", "--store", filled)
    Path(folder, "0001_index_year.py").unlink()
    unknown = "unknown: 0001_index_year: applied by newer code, or its file is missing in --dir\n"
    assert (1, unknown, "") == command("migrate", "check", *place)


def test_every_command_prints_json(filled: str, folder: str) -> None:
    """One document each."""
    place = ("--store", filled, "--dir", folder, "--json")
    pending = [
        {"name": "0001_index_year", "description": "filters on the year by an index"},
        {"name": "0002_short_texts", "description": "BM25 for short texts"},
    ]
    assert {
        "collection": "msmarco",
        "physical": "msmarco__0001",
        "model": HashingEncoder().info.model,
        "others": [],
        "is_unfinished": False,
        "applied": ["0001_create_passages", "0002_payload_indexes"],
        "pending": pending,
        "unknown": [],
        "edited": [],
        "user_migrations": [],
        "locked_by": None,
    } == json.loads(command("migrate", "status", *place).out)
    check = command("migrate", "check", *place)
    names = [entry["name"] for entry in pending]
    assert 1 == check.status
    lists = {"pending": names, "unknown": [], "edited": []}
    assert {"current": False, **lists} == json.loads(check.out)
    dry = json.loads(command("migrate", "up", *place, "--dry-run").out)
    done = json.loads(command("migrate", "up", *place).out)
    assert (True, False) == (dry["dry_run"], done["dry_run"])
    assert names == [step["name"] for step in done["steps"]]
    assert dry["steps"] == done["steps"]
    assert {"dry_run": False, "steps": []} == json.loads(command("migrate", "up", *place).out)
    unlocked = command("migrate", "unlock", "--store", filled, "--json")
    assert {"unlocked": None} == json.loads(unlocked.out)


def test_lock_is_released_with_its_token(filled: str) -> None:
    """On a server, where it outlives its process."""
    if not filled.startswith("grpc://"):
        done = command("migrate", "unlock", "--store", filled)
        assert (0, "'msmarco' is not locked\n", "") == done
        return
    with closing(open_store(filled)) as store, hold_lock(store.migration_locks, "msmarco") as ours:
        status = command("migrate", "status", "--store", filled).out
        assert f"locked by   process {ours.pid} on {ours.host} since {ours.since}" in status
        refused = command("migrate", "up", "--store", filled)
        assert (1, "") == (refused.status, refused.out)
        assert (
            f"'msmarco' is being migrated or restored by process {ours.pid} on {ours.host}"
            in refused.err
        )
        first = command("migrate", "unlock", "--store", filled)
        assert (2, "") == (first.status, first.out)
        assert f"if that process has ended, pass --token {ours.token}" in first.err
        stale = command("migrate", "unlock", "--store", filled, "--token", "stale")
        assert (1, "") == (stale.status, stale.out)
        assert f"with the token {ours.token}, not stale" in stale.err
        done = command("migrate", "unlock", "--store", filled, "--token", ours.token)
        assert 0 == done.status
        assert done.out.startswith(f"unlocked: 'msmarco' was locked by process {ours.pid}")
        assert store.migration_locks.holder("msmarco") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "filled", ["edge", pytest.param("loopback", marks=pytest.mark.slow)], indirect=True
)
def test_second_process_is_refused(filled: str, folder: str) -> None:
    """The error names the holder: on Edge of the directory, on a server of the lock."""
    Path(folder, "0001_index_year.py").write_text(WAITS)
    arguments = ["migrate", "up", "--store", filled, "--dir", folder]
    with waiting_command(*arguments) as first:
        second = command(*arguments)
        assert (1, "") == (second.status, second.out)
        assert f"process {first.pid} on " in second.err
        out, _ = first.communicate()
    assert (0, "applied: 0001_index_year, 0002_short_texts\n") == (first.returncode, out)
    assert (0, "nothing is pending\n", "") == command(*arguments)


@pytest.mark.slow
def test_killed_migration_runs_again(filled: str, folder: str) -> None:
    """On a server after its lock is released."""
    Path(folder, "0002_short_texts.py").write_text(WAITS)
    arguments = ["migrate", "up", "--store", filled, "--dir", folder]
    with waiting_command(*arguments) as killed:
        killed.kill()
    Path(folder, "0002_short_texts.py").write_text(TEXTS)
    if filled.startswith("grpc://"):
        assert 1 == command(*arguments).status
        with closing(open_store(filled)) as store:
            holder = store.migration_locks.holder("msmarco")
        assert holder is not None
        assert killed.pid == holder.pid
        command("migrate", "unlock", "--store", filled, "--token", holder.token)
    done = command(*arguments)
    assert (0, "applied: 0002_short_texts\n") == (done.status, done.out)
    with closing(open_store(filled)) as store:
        own, names = load_migrations(), ("0001_index_year", "0002_short_texts")
        assert (*(one.name for one in own), *names) == store.metadata("msmarco").migrations
