"""`collections`, `drop` and `info`, as a person or a script uses them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from msmarco_qdrant.collection.optimize import optimize_collection
from msmarco_qdrant.collection.passages import get_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import CollectionNotFoundError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.generations import physical
from tests.loopback import LoopbackServer


def is_now(moment: str) -> bool:
    """Return True for an ISO time with offset in the last two minutes."""
    age = datetime.now(UTC) - datetime.fromisoformat(moment)
    return timedelta(seconds=-2) < age < timedelta(minutes=2)


# ---- collections ---------------------------------------------------------------------------


def test_collections_are_listed(filled: str) -> None:
    """As JSON, and as a table by name."""
    (entry,) = json.loads(command("collections", "--store", filled, "--json").out)
    assert is_now(entry.pop("last_write"))
    names = {"name": "msmarco", "model": "costless-64", "physical": "msmarco__0001"}
    assert {**names, "passages": 5} == entry
    other = HashingEncoder(dimension=32)
    ingest_passages([Passage("1", "one")], filled, collection="films", encoder=other)

    done = command("collections", "--store", filled)

    assert (0, "") == (done.status, done.err)
    head, films, msmarco = done.out.splitlines()
    assert ["collection", "passages", "model", "physical", "name", "last", "write"] == head.split()
    assert ["films", "1", "costless-32", "films__0001"] == films.split()[:4]
    assert ["msmarco", "5", "costless-64", "msmarco__0001"] == msmarco.split()[:4]
    assert is_now(films.split()[4])


def test_store_without_collections_and_passages(tmp_path: Path) -> None:
    """No collection, and one that was never written to: not in the year 1970."""
    given = ("collections", "--store", str(tmp_path / "store"))
    open_store(given[-1], create=True).close()
    assert (0, "no collections yet\n", "") == command(*given)
    assert [] == json.loads(command(*given, "--json").out)

    ingest_passages([], given[-1], encoder=HashingEncoder(), optimize=False)
    assert command(*given).out.endswith("  never\n")
    assert json.loads(command(*given, "--json").out)[0]["last_write"] is None
    assert "\nlast write  never\n" in command("info", "--store", given[-1]).out


# ---- drop ----------------------------------------------------------------------------------


def test_drop_needs_yes(filled: str, passages: Sequence[Passage]) -> None:
    """Without it, the message has the number of passages, and nothing is dropped."""
    done = command("drop", "msmarco", "--store", filled)

    expected = f"Error: nothing was dropped: 'msmarco' in {filled} has 5 passages; pass --yes"
    assert (2, "") == (done.status, done.out)
    assert done.err.startswith(expected)
    assert 5 == len(get_passages(filled, [passage.pid for passage in passages]))


def test_drop_removes_a_collection(filled: str) -> None:
    """With all passages, and no other collection."""
    ingest_passages([Passage("1", "one")], filled, collection="films", encoder=HashingEncoder())

    done = command("drop", "msmarco", "--store", filled, "--yes")

    assert (0, "dropped 'msmarco' with 5 passages\n", "") == done
    assert ["1"] == list(get_passages(filled, ["1"], collection="films"))
    with pytest.raises(CollectionNotFoundError):
        get_passages(filled, ["1"])


def test_drop_removes_what_an_interrupted_creation_left(filled: str) -> None:
    """By its physical name."""
    with closing(open_store(filled)) as store:
        store.create_collection("films__0001", store.collection("msmarco").info().spec)

    done = command("drop", "films__0001", "--store", filled, "--yes", "--json")

    assert {"dropped": "films__0001", "passages": 0} == json.loads(done.out)
    assert 1 == command("drop", "films__0001", "--store", filled, "--yes").status


def test_drop_removes_what_re_embeddings_left(filled: str) -> None:
    """All physical collections, even if the live one is missing."""
    with closing(open_store(filled)) as store:
        physical(store, HashingEncoder(32))
        store.drop_collection("msmarco__0001")

    done = command("drop", "msmarco", "--store", filled)
    assert (2, True) == (done.status, "has 0 passages; pass --yes" in done.err)

    done = command("drop", "msmarco", "--store", filled, "--yes")
    assert (0, "dropped 'msmarco' with 0 passages\n", "") == done
    assert 1 == command("drop", "msmarco", "--store", filled, "--yes").status


def test_drop_of_a_missing_collection_is_an_error(filled: str) -> None:
    """The message lists the existing ones."""
    for yes in ([], ["--yes"]):
        done = command("drop", "other", "--store", filled, *yes)

        assert (1, "") == (done.status, done.out)
        assert f"Error: no collection 'other' in {filled}; there: msmarco." in done.err


# ---- info ----------------------------------------------------------------------------------


def test_info_shows_state_and_settings(filled: str) -> None:
    """As text and as JSON."""
    done = command("info", "--store", filled)

    assert (0, "") == (done.status, done.err)
    lines = {line[:12].strip(): line[12:] for line in done.out.splitlines()}
    assert filled in lines["store"]
    assert "msmarco -> msmarco__0001" == lines["collection"]
    assert "5" == lines["passages"]
    assert "costless-64 (64, cosine)" == lines["model"]
    assert "k=0.9 b=0.4 avg_len=36.6 english" == lines["bm25"]
    assert "0001_create_passages, 0002_payload_indexes" == lines["migrations"]
    assert is_now(lines["last write"])
    assert lines["index"].endswith(", ready")
    assert (
        "hnsw m=16 ef_construct=256, vectors on disk, quantization: int8, "
        "payload indexes: seq (integer)"
    ) == lines["settings"]
    assert {"msmarco-qdrant", "qdrant-edge-py", "qdrant-client", "sentence-transformers"} <= {
        entry.split()[0] for entry in lines["versions"].split(", ")
    }

    store = json.loads(command("info", "--store", filled, "--json").out)
    (entry,) = store["collections"]
    assert filled == store["store"]
    encoder = entry["metadata"]["encoder"]
    assert ("costless-64", 64) == (encoder["model"], encoder["dimension"])
    assert 64 == len(encoder["fingerprint"])
    assert is_now(entry["last_write"])
    assert ("ready", 5) == (entry["info"]["state"], entry["info"]["points"])
    spec = entry["info"]["spec"]
    assert {"m": 16, "ef_construct": 256} == spec["hnsw"]
    assert {"on_disk": True, "quantization": "int8"} == spec["storage"]
    assert {"seq": "integer"} == spec["payload_indexes"]


# ---- optimize ------------------------------------------------------------------------------


def test_optimize_sends_the_requests_of_the_function() -> None:
    """It checks the collection before it announces the build, and not again after that."""
    counts = []
    with LoopbackServer() as server:
        ingest_passages([Passage("1", "one")], server.url, encoder=HashingEncoder())
        for run in (
            lambda: optimize_collection(server.url),
            lambda: command("optimize", "--store", server.url),
        ):
            server.requests.clear()
            run()
            counts.append(server.requests.count())
    assert counts[0] == counts[1] > 0
