"""`adopt`: from a folder of qdrant-client's local mode, and from a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from tests.cli.runner import Outcome, command
from tests.loopback import LoopbackServer

PAGES = [{"page_content": f"page {n} is about owls", "metadata": {"n": n}} for n in range(5)]
VECTORS = models.VectorParams(size=2, distance=models.Distance.COSINE)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with a collection: five pages, one of them twice, and a point without a text."""
    place = str(tmp_path / "local")
    client = QdrantClient(path=place)
    client.create_collection("docs", vectors_config=VECTORS)
    payloads: list[dict[str, Any]] = [*PAGES, PAGES[0], {"n": 7}]
    points = [
        models.PointStruct(id=number, vector=[1.0, 0.0], payload=payload)
        for number, payload in enumerate(payloads, 1)
    ]
    client.upsert("docs", points)
    client.close()
    return place


def adopt(folder: str, *arguments: str, name: str = "docs") -> Outcome:
    """Run `adopt` into the store `store`."""
    return command("adopt", name, "--from", folder, "--store", "store", *arguments)


def test_a_collection_is_adopted_once(folder: str, tiny: str) -> None:
    """Text, then JSON: what was found and written; then nothing more is written."""
    text = ("--text-field", "text", "--rejects", "rejects.jsonl", "--model", tiny)
    first = adopt(folder, *text)

    assert 3 == first.status, first.err
    assert first.out.startswith("6 read: 5 written, 0 unchanged, 1 rejected; ")
    assert "points: 6 of LangChain, 1 of no framework\n" in first.out
    assert "1 points repeat the text and the metadata of another" in first.out
    again = adopt(folder, *text, "--allow-rejects", "--json")
    shown = json.loads(again.out)
    assert (0, 0, 5, 1) == (again.status, shown["written"], shown["unchanged"], shown["rejected"])
    assert ({"langchain": 6, "plain": 1}, 1) == (shown["shapes"], shown["duplicates"])
    (reject,) = map(json.loads, Path("rejects.jsonl").read_text().splitlines())
    assert "collection docs, point 7" == reject["file"]
    found = json.loads(command("get", "2", "--store", "store", "--json").out)
    assert "page 1 is about owls" == found["text"]


def test_dry_run_writes_nothing(folder: str) -> None:
    """It shows the shapes, the first passages and the rejects, and loads no model."""
    shown = adopt(folder, "--text-field", "text", "--dry-run", "--model", "missing")

    assert 3 == shown.status
    assert 'pid 1  page 0 is about owls  {"n": 0}' in shown.out
    assert "rejected: collection docs, point 7: no field 'text' for the text" in shown.out
    assert shown.out.endswith("5 passages, 1 rejected\nnothing was written (--dry-run)\n")
    as_json = json.loads(adopt(folder, "--text-field", "text", "--dry-run", "--json").out)
    assert (5, 1, 3) == (as_json["passages"], as_json["rejected"], len(as_json["first"]))
    assert not Path("store").exists()


def test_chunks_with_one_pid_are_rejected(tmp_path: Path, tiny: str) -> None:
    """By the preview as by the ingest; none is lost in silence."""
    place = str(tmp_path / "local")
    client = QdrantClient(path=place)
    client.create_collection("docs", vectors_config=VECTORS)
    payloads = [{"text": f"chunk {n} of a book", "book": n // 2} for n in range(4)]
    points = [
        models.PointStruct(id=number, vector=[1.0, 0.0], payload=payload)
        for number, payload in enumerate(payloads)
    ]
    client.upsert("docs", points)
    client.close()
    preview = adopt(place, "--pid-field", "book", "--dry-run")
    assert 3 == preview.status
    assert "rejected: collection docs, point 1: pid '0' was read before in this run" in preview.out
    assert "2 passages, 2 rejected\n" in preview.out
    done = adopt(place, "--pid-field", "book", "--model", tiny)
    assert (3, True) == (done.status, done.out.startswith("4 read: 2 written, 0 unchanged, 2 rej"))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--pids", "content", "--pid-field", "n"], 2, "pass --pid-field 'n' or --pids 'content'"),
        (["--yes"], 2, "--yes needs --prune"),
        (["--text-field", ""], 2, "--text-field must be the name of a field"),
        (["--from", "nowhere"], 1, "no folder nowhere: pass the URL of a server or a folder"),
        (["--from", "."], 1, "is not a folder that QdrantClient(path=...) wrote"),
        (["--collection", "a/b"], 2, "a/b"),
        (["--query-prompt", "q"], 2, "pass both --query-prompt and --passage-prompt"),
        (["--from-key-file", "k"], 2, "--from-key-file needs the URL of a server in --from, got"),
    ],
)
def test_mistakes_are_refused(folder: str, arguments: list[str], status: int, message: str) -> None:
    """In the words of the command line; no store is left."""
    done = adopt(folder, *arguments)

    assert status == done.status
    assert message in done.err
    assert 1 == len(done.err.strip().splitlines()[-1:])
    assert not Path("store").exists()


def test_the_server_of_the_source_has_its_own_key(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets that one, and the key of the store goes to the store alone."""
    with LoopbackServer("theirs") as theirs, LoopbackServer("ours") as ours:
        # as a header, since with `api_key` the client warns of an address without TLS
        fill = QdrantClient(url=theirs.rest_url, headers={"api-key": "theirs"})
        fill.create_collection("docs", vectors_config=VECTORS)
        point = models.PointStruct(id=1, vector=[1.0, 0.0], payload=PAGES[0])
        fill.upsert("docs", [point], wait=True)
        fill.close()
        monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", "ours")
        words = ["adopt", "docs", "--store", ours.rest_url, "--transport", "rest", "--model", tiny]
        words += ["--from", theirs.rest_url, "--collection", "articles"]
        assert 0 != command(*words).status
        Path("empty").write_text(" \n")
        for name, message in (("missing", "key-file missing: No such file"), ("empty", "is empty")):
            refused = command(*words, "--from-key-file", name)
            assert (2, True) == (refused.status, message in refused.err), refused.err
        Path("key").write_text("theirs\n")
        done = command(*words, "--from-key-file", "key")
        assert (0, True) == (done.status, done.out.startswith("1 read: 1 written")), done.err


def test_a_collection_is_not_adopted_into_itself(folder: str) -> None:
    """Nor is a missing one guessed."""
    same = command("adopt", "docs", "--store", folder, "--collection", "docs")
    assert 2 == same.status
    assert "SOURCE and --collection are both 'docs': choose another name" in same.err
    missing = adopt(folder, name="dosc")
    assert 1 == missing.status
    assert "no collection 'dosc' in " in missing.err
    assert "it has docs" in missing.err
