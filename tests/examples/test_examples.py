"""The examples run, and end as their docstrings say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant import Passage, get_passages, ingest_passages
from tests.conftest import ROOT
from tests.encoding.tiny_models import Recipe, save_tiny

PRODUCTS = """sku,name,description,price,tags
p1,Kettle,"Boils a liter of water, quickly.",29.90,kitchen|electric
p2,Tent,"For two, and for any weather.",120,outdoor
p3,,,0,
p4,Lamp,A small light for reading.,15.5,home
"""


def example(name: str) -> dict[str, Any]:
    """The names that an example defines."""
    return runpy.run_path(str(ROOT / "examples" / name))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with random weights."""
    return str(save_tiny(tmp_path_factory.mktemp("model"), Recipe()))


@pytest.mark.slow
def test_csv_import_nightly_update_and_retrieval(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One store goes through all three."""
    file, store = tmp_path / "products.csv", str(tmp_path / "store")
    file.write_text(PRODUCTS)
    example("csv_import.py")["main"](str(file), store, model)
    assert ("3 written, 0 unchanged, 1 rejected\n", "rejected: the text is empty\n") == (
        capsys.readouterr()
    )
    found = get_passages(store, ["p1"], collection="products")
    assert {"price": 29.9, "tags": ["kitchen", "electric"]} == found["p1"].meta

    update = example("nightly_update.py")["main"]
    tonight = tmp_path / "tonight.tsv"
    tonight.write_text("p2\tA tent for two.\np4\tLamp A small light for reading.\n")
    assert 1 == update(str(tonight), store, model)  # a third of the collection would be deleted
    assert "update failed: " in capsys.readouterr().err
    tonight.write_text("p1\tKettle\np2\tTent\np3\tStove\np4\tLamp\np5\tMap\n")
    assert 0 == update(str(tonight), store, model)
    assert "5 written, 0 unchanged, 0 deleted\n" == capsys.readouterr().out
    tonight.write_text("p1\tKettle\np2\tTent\np3\tStove\np4\tLamp\n")
    assert 0 == update(str(tonight), store, model)
    assert "0 written, 4 unchanged, 1 deleted\n" == capsys.readouterr().out

    example("retrieval.py")["main"](store, "products", "what to take into the mountains")
    prompt = capsys.readouterr().out
    assert "Question: what to take into the mountains" in prompt
    assert {"[1]", "(p2)"} <= set(prompt.split())


@pytest.mark.slow
def test_the_application_searches_and_writes(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over one directory: a passage is found as soon as it is written, and not after its delete."""
    testclient = pytest.importorskip("fastapi.testclient")
    store = str(tmp_path / "store")
    ingest_passages(
        [Passage("m1", "A silent film.", {"lang": "de"}), Passage("m2", "A loud film.")],
        store,
        collection="films",
        model=model,
        payload_indexes={"lang": "keyword"},
    )
    monkeypatch.setenv("MSMARCO_STORE", store)
    with testclient.TestClient(example("fastapi_app.py")["app"]) as client:
        found = client.get("/search", params={"query": "silent film", "lang": "de"}).json()
        assert [("m1", {"lang": "de"})] == [(hit["pid"], hit["meta"]) for hit in found]
        robot = {"pid": "m9", "text": "A robot learns to love."}
        assert {"written": 1, "unchanged": 0} == client.put("/passages", json=[robot]).json()
        assert {"written": 0, "unchanged": 1} == client.put("/passages", json=[robot]).json()
        best = client.get("/search", params={"query": "robot", "limit": 1}).json()
        assert ["m9"] == [hit["pid"] for hit in best]
        assert {"deleted": 1} == client.delete("/passages/m9").json()
        assert 2 == len(client.get("/search", params={"query": "robot"}).json())
        assert 422 == client.put("/passages", json=[{"pid": "m9", "text": "\0"}]).status_code
        assert 422 == client.get("/search", params={"query": "x", "limit": 0}).status_code
