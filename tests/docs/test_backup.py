"""The commands for backups in docs/server.md run, and print what is shown."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.conftest import ROOT
from tests.docs.pages import page, sessions
from tests.loopback import LoopbackServer

SAMPLE = ROOT / "msmarco_qdrant" / "cli" / "sample" / "passages.tsv"
URL = "http://localhost:6333"
SECTION = page("server.md").split("## Backup and restore\n")[1]
SECTION = SECTION.split("\n## ")[0]


def without_sizes(text: str) -> str:
    """The text without times and sizes."""
    return re.sub(r"[\d,.]+ (s|MiB)\b", r"\1", text).strip()


def run_shown(line: str, shown: str, url: str = URL) -> None:
    """Run a shown command in this process; it prints the shown output."""
    _, *arguments = line.replace(URL, url).split()
    done = command(*arguments)
    assert (0, without_sizes(shown)) == (done.status, without_sizes(done.out)), done.err


@pytest.mark.slow
def test_v4_commands_of_the_servers_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a server, whose alias is removed before the last one."""
    monkeypatch.chdir(tmp_path)
    commands = sessions(SECTION)
    assert 5 == len(commands)
    with LoopbackServer(adjacent=True) as server, closing(open_store(server.rest_url)) as store:
        ingest_passages(str(SAMPLE), store, encoder=HashingEncoder(), optimize=False)
        for line, shown in commands[:-1]:
            run_shown(line, shown, server.rest_url)
        store.remove_alias("msmarco")
        run_shown(*commands[-1], server.rest_url)
