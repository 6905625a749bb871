"""`collections`, `drop` and `info`, as a person or a script meets them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from msmarco_qdrant.collection.passages import get_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import CollectionNotFoundError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.generations import physical


def is_now(moment: str) -> bool:
    """Whether an ISO time lies in the last two minutes, and tells its offset."""
    age = datetime.now(UTC) - datetime.fromisoformat(moment)
    return timedelta(seconds=-2) < age < timedelta(minutes=2)


# ---- collections ---------------------------------------------------------------------------


def test_collections_are_listed(filled: str) -> None:
    """A head and a line each, by name."""
    other = HashingEncoder(dimension=32)
    ingest_passages([Passage("1", "one")], filled, collection="films", encoder=other)

    done = command("collections", "--store", filled)

    assert (0, "") == (done.status, done.err)
    head, films, msmarco = done.out.splitlines()
    assert ["collection", "passages", "model", "physical", "name", "last", "write"] == head.split()
    assert ["films", "1", "costless-32", "films__0001"] == films.split()[:4]
    assert ["msmarco", "5", "costless-64", "msmarco__0001"] == msmarco.split()[:4]
    assert is_now(films.split()[4])


def test_collections_are_listed_as_json(filled: str) -> None:
    """The same as objects."""
    done = command("collections", "--store", filled, "--json")

    (entry,) = json.loads(done.out)
    assert is_now(entry.pop("last_write"))
    assert {
        "name": "msmarco",
        "passages": 5,
        "model": "costless-64",
        "physical": "msmarco__0001",
    } == entry


def test_a_store_without_collections_says_so(tmp_path: Path) -> None:
    """As text; as JSON it is an empty list."""
    open_store(tmp_path / "store", create=True).close()

    assert (0, "no collections yet\n", "") == command("collections", "--store", f"{tmp_path}/store")
    assert [] == json.loads(command("collections", "--store", f"{tmp_path}/store", "--json").out)


def test_a_collection_that_was_never_written_to_says_so(tmp_path: Path) -> None:
    """Instead of the year 1970."""
    place = str(tmp_path / "store")
    ingest_passages([], place, encoder=HashingEncoder())

    assert command("collections", "--store", place).out.endswith("  never\n")
    assert (
        json.loads(command("collections", "--store", place, "--json").out)[0]["last_write"] is None
    )
    assert "\nlast write  never\n" in command("info", "--store", place).out


# ---- drop ----------------------------------------------------------------------------------


def test_drop_wants_to_be_sure(filled: str, passages: Sequence[Passage]) -> None:
    """Without --yes it tells what would go, and nothing does."""
    done = command("drop", "msmarco", "--store", filled)

    expected = f"Error: nothing was dropped: 'msmarco' in {filled} has 5 passages; pass --yes"
    assert (2, "") == (done.status, done.out)
    assert done.err.startswith(expected)
    assert 5 == len(get_passages(filled, [passage.pid for passage in passages]))


def test_drop_removes_a_collection(filled: str) -> None:
    """With all that is in it, and no other; it tells what went."""
    ingest_passages([Passage("1", "one")], filled, collection="films", encoder=HashingEncoder())

    done = command("drop", "msmarco", "--store", filled, "--yes")

    assert (0, "dropped 'msmarco' with 5 passages\n", "") == done
    assert ["1"] == list(get_passages(filled, ["1"], collection="films"))
    with pytest.raises(CollectionNotFoundError):
        get_passages(filled, ["1"])


def test_drop_removes_what_an_interrupted_creation_left(filled: str) -> None:
    """By its physical name, which no name stands for."""
    with closing(open_store(filled)) as store:
        store.create_collection("films__0001", store.collection("msmarco").info().spec)

    done = command("drop", "films__0001", "--store", filled, "--yes", "--json")

    assert {"dropped": "films__0001", "passages": 0} == json.loads(done.out)
    assert 1 == command("drop", "films__0001", "--store", filled, "--yes").status


def test_drop_removes_what_re_embeddings_left(filled: str) -> None:
    """All of the name, even when the name itself is gone; what it would remove is told first."""
    with closing(open_store(filled)) as store:
        physical(store, HashingEncoder(32))
        store.drop_collection("msmarco__0001")

    done = command("drop", "msmarco", "--store", filled)
    assert (2, True) == (done.status, "has 0 passages; pass --yes" in done.err)

    done = command("drop", "msmarco", "--store", filled, "--yes")
    assert (0, "dropped 'msmarco' with 0 passages\n", "") == done
    assert 1 == command("drop", "msmarco", "--store", filled, "--yes").status


@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_drop_of_what_is_not_there_is_an_error(filled: str, yes: list[str]) -> None:
    """The message tells those there are."""
    done = command("drop", "other", "--store", filled, *yes)

    assert (1, "") == (done.status, done.out)
    assert f"Error: no collection 'other' in {filled}; there: msmarco." in done.err


# ---- info ----------------------------------------------------------------------------------


def test_info_tells_state_and_settings(filled: str) -> None:
    """As text: whether the index is built, how vectors are kept, when it was written to."""
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


def test_info_tells_state_and_settings_as_json(filled: str) -> None:
    """The same as one document."""
    done = command("info", "--store", filled, "--json")

    store = json.loads(done.out)
    (entry,) = store["collections"]
    assert filled == store["store"]
    encoder = entry["metadata"]["encoder"]
    assert ("costless-64", 64, 64) == (
        encoder["model"],
        encoder["dimension"],
        len(encoder["fingerprint"]),
    )
    assert is_now(entry["last_write"])
    assert ("ready", 5) == (entry["info"]["state"], entry["info"]["points"])
    spec = entry["info"]["spec"]
    assert {"m": 16, "ef_construct": 256} == spec["hnsw"]
    assert {"on_disk": True, "quantization": "int8"} == spec["storage"]
    assert {"seq": "integer"} == spec["payload_indexes"]
