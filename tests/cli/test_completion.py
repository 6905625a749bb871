"""Completion in a shell, through click's protocol and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.shell_completion import BashComplete, ZshComplete

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer

SCRIPTS = Path(sys.executable).parent
VARIABLE = "_MSMARCO_QDRANT_COMPLETE"


def completed(*words: str) -> list[tuple[str, str]]:
    """The type and the value of each completion of the last word."""
    *before, incomplete = words
    shell = BashComplete(cli, {}, "msmarco-qdrant", VARIABLE)
    return [(one.type, one.value) for one in shell.get_completions(before, incomplete)]


def fill(place: str) -> None:
    """Create the collections 'films' and 'fiction'."""
    for name in ("films", "fiction"):
        passages = [Passage("1", "london")]
        ingest_passages(passages, place, collection=name, encoder=HashingEncoder(), optimize=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["coll"], [("plain", "collections")]),
        (["migrate", "ro"], [("plain", "rollback")]),
        (
            ["search", "--rerank"],
            [("plain", f"--rerank{end}") for end in ("er", "-depth", "-sigmoid")],
        ),
        (["search", "--mode", "h"], [("plain", "hybrid")]),
        (["ingest", "pass"], [("file", "pass")]),
        (["export", "out"], [("file", "out")]),
        (["search", "--queries", "q"], [("file", "q")]),
        (["encode", "x", "--out", "v"], [("dir", "v")]),
        (["ingest", "--model", "all-"], [("plain", "all-MiniLM-L6-v2")]),
        (["ingest", "--model", "./mod"], [("dir", "./mod")]),
        (["search", "--reranker", "ms-marco-el"], [("plain", "ms-marco-electra-base")]),
    ],
)
def test_words_and_values_are_completed(
    words: Sequence[str], expected: list[tuple[str, str]]
) -> None:
    """Commands, options, choices, files, folders and models."""
    assert sorted(expected) == sorted(completed(*words))


@pytest.mark.parametrize("engine", ["edge", "loopback"])
def test_collections_of_the_store_are_completed(engine: str, server: LoopbackServer) -> None:
    """Of `--store`, wherever a collection is named; nothing without a store."""
    place = server.url if engine == "loopback" else "store"
    fill(place)
    films = [("plain", "fiction"), ("plain", "films")]
    assert films == completed("search", "x", "--store", place, "--collection", "fi")
    assert films[1:] == completed("drop", "--store", place, "fil")
    assert [] == completed("drop", "--store", "nowhere", "fil")
    assert [] == completed("drop", "--store", "http://127.0.0.1:1", "fil")


def test_default_store_is_completed() -> None:
    """Without `--store`; a store that another process has open is read, too."""
    fill("qdrant_data")
    assert [("plain", "films")] == completed("check", "film")


def test_zsh_is_answered() -> None:
    """In the form of its script: type, value and help on three lines."""
    shell = ZshComplete(cli, {}, "msmarco-qdrant", VARIABLE)
    assert "compdef _msmarco_qdrant_completion msmarco-qdrant" in shell.source()
    (one,) = shell.get_completions(["ingest", "--model"], "all-")
    assert ["plain", "all-MiniLM-L6-v2", "_"] == shell.format_completion(one).splitlines()


@pytest.mark.slow
def test_bash_completes_with_the_documented_line() -> None:
    """The script of the help, called as bash does at TAB."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    fill("qdrant_data")
    lines = [
        f'eval "$({VARIABLE}=bash_source msmarco-qdrant)"',
        "complete -p msmarco-qdrant",
        "COMP_WORDS=(msmarco-qdrant search x --collection fi) COMP_CWORD=4",
        "_msmarco_qdrant_completion msmarco-qdrant",
        'echo "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(
        [bash, "--norc", "-c", "\n".join(lines)],
        env={**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    registered, words = done.stdout.splitlines()
    assert "_msmarco_qdrant_completion" in registered
    assert "fiction films" == words
