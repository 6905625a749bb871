"""Import, command line and the in-memory store: what works on every operating system.

The wheel workflow runs this file alone on macOS and Windows, with few test tools installed.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import msmarco_qdrant
from msmarco_qdrant import (
    Passage,
    SearchClient,
    get_passages,
    ingest_passages,
    open_store,
)
from msmarco_qdrant.testing import HashingEncoder

PASSAGES = [
    Passage("1", "London is a large city on the river Thames."),
    Passage("2", "A cat sleeps most of the day."),
]


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m msmarco_qdrant` as a user does."""
    command = [sys.executable, "-m", "msmarco_qdrant", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", sorted(msmarco_qdrant.__all__))
def test_public_names_import(name: str) -> None:
    """Every public name imports."""
    assert getattr(msmarco_qdrant, name) is not None


@pytest.mark.parametrize("arguments", [["--help"], ["ingest", "--help"], ["models"]])
def test_commands_run(arguments: list[str]) -> None:
    """The command line answers without an engine."""
    finished = run_command(*arguments)
    assert (0, "") == (finished.returncode, finished.stderr)
    assert finished.stdout


def test_in_memory_store_ingests_and_searches() -> None:
    """The in-memory store of qdrant-client takes passages, and a search ranks them."""
    encoder = HashingEncoder()
    with closing(open_store(":memory:", create=True)) as store:
        report = ingest_passages(PASSAGES, store, collection="films", encoder=encoder)
        with SearchClient.open(store, collection="films", encoder=encoder) as client:
            hits = client.search("city on the river", limit=1)
        kept = get_passages(store, ["2"], collection="films")
    assert (2, 0) == (report.written, report.rejected)
    assert ["1"] == [hit.pid for hit in hits]
    assert ["2"] == [passage.pid for passage in kept.values()]


def test_directory_store_works_or_names_the_reason(tmp_path: Path) -> None:
    """A directory is an Edge store where the system has POSIX file locks, else one clear error."""
    if sys.platform == "win32":
        with pytest.raises(msmarco_qdrant.MsmarcoQdrantError, match="Windows"):
            open_store(tmp_path / "store", create=True)
        return
    with closing(open_store(tmp_path / "store", create=True)) as store:
        report = ingest_passages(PASSAGES, store, collection="films", encoder=HashingEncoder())
    assert 2 == report.written


WITHOUT_POSIX = """
import asyncio, os, sys  # asyncio first: on this system it needs fcntl itself
from contextlib import closing

class NoPosix:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "grp", "pwd", "resource", "termios"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoPosix())
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules.pop(name, None)
for name in ("fork", "register_at_fork"):
    if hasattr(os, name):
        delattr(os, name)

import msmarco_qdrant.cli.app, msmarco_qdrant.encode.api
from msmarco_qdrant import *
from msmarco_qdrant.errors import UnsupportedError
from msmarco_qdrant.testing import HashingEncoder

encoder = HashingEncoder()
with closing(open_store(":memory:", create=True)) as store:
    ingest_passages([Passage("1", "a cat")], store, collection="films", encoder=encoder)
    with SearchClient.open(store, collection="films", encoder=encoder) as client:
        print([hit.pid for hit in client.search("cat")])
try:
    open_store(sys.argv[1], create=True)
except UnsupportedError as exc:
    print(exc)
"""


def test_r12_a_system_without_posix_modules_needs_them_for_a_directory_alone(
    tmp_path: Path,
) -> None:
    """As on Windows: every public name, the command line, and a search in a store in memory."""
    command = [sys.executable, "-c", WITHOUT_POSIX, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "" == done.stderr
    found, refusal = done.stdout.splitlines()
    assert "['1']" == found
    assert "need POSIX file locks, which this system does not have: use a Qdrant server" in refusal
