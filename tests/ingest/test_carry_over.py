"""Collections with version 1 of the fingerprint: they open, and are carried over by an ingest."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from msmarco_qdrant import (
    Passage,
    SearchClient,
    VectorShards,
    encode_corpus,
    ingest_passages,
    open_store,
)
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.errors import ModelMismatchError
from msmarco_qdrant.stores import Store
from tests.encoding.conftest import Tiny, tiny  # noqa: F401  # a fixture
from tests.encoding.tiny_models import Recipe, texts_of_lengths

PASSAGES = [Passage(str(n), text) for n, text in enumerate(texts_of_lengths([5, 9, 12, 20, 30]))]
MORE = [*PASSAGES, Passage("more", "a cold night in london")]


def _encoder(directory: Path) -> BiEncoder:
    return load_encoder(directory, device="cpu", precision="float32")


def _as_of_version_1(encoder: BiEncoder) -> Encoder:
    """Give an encoder the info that version 0.1 stored."""
    (first,) = encoder.info.other_fingerprints
    encoder.info = replace(encoder.info, fingerprint=first, other_fingerprints=())
    return encoder


@pytest.fixture
def model(tiny: Tiny, tmp_path: Path) -> Path:  # noqa: F811  # the fixture
    """A model of its own for the test to change."""
    return Path(shutil.copytree(tiny(Recipe("bert")), tmp_path / "m"))


@pytest.fixture
def store(model: Path, tmp_path: Path) -> str:
    """A store with the collection that version 0.1 would have written."""
    place = str(tmp_path / "store")
    old = _as_of_version_1(_encoder(model))
    ingest_passages(PASSAGES, place, collection="c", encoder=old, optimize=False)
    with open_store(place) as opened:
        _set_info(opened, replace(opened.metadata("c").encoder, other_fingerprints=()))
    return place


def _set_info(store: Store, info: EncoderInfo) -> None:
    physical = store.aliases()["c"]
    store.put_metadata(physical, replace(store.metadata(physical), encoder=info))


def _info(place: str) -> EncoderInfo:
    with open_store(place) as opened:
        return opened.metadata("c").encoder


def _other_setting(model: Path) -> None:
    config = json.loads((model / "config.json").read_text("utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 100.0}), "utf-8")


def test_s4_a_new_collection_refuses_another_configuration(model: Path, tmp_path: Path) -> None:
    """A copy with another setting is another model, for searches and for an ingest."""
    place = str(tmp_path / "new")
    ingest_passages(PASSAGES, place, collection="c", encoder=_encoder(model), optimize=False)
    assert _info(place).fingerprint.startswith("2-")
    assert _info(place).vector_name == f"dense-{_info(place).fingerprint[2:10]}"
    _other_setting(model)
    with pytest.raises(ModelMismatchError):
        SearchClient.open(place, collection="c", encoder=_encoder(model))
    with pytest.raises(ModelMismatchError):
        ingest_passages(MORE, place, collection="c", encoder=_encoder(model))


def test_s4_a_collection_of_version_1_opens(store: str, model: Path) -> None:
    """Its model is recognized by the old rule, and found texts are the right ones."""
    assert "2-" not in _info(store).fingerprint
    with SearchClient.open(store, collection="c", encoder=_encoder(model)) as client:
        hits = client.search(PASSAGES[3].text, limit=1)
    assert [hit.pid for hit in hits] == [PASSAGES[3].pid]


def test_s4_an_ingest_carries_a_collection_over(
    store: str, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It adds version 2; the identity, the vector's name and the vectors stay."""
    caplog.set_level(logging.INFO)
    before = _info(store)
    report = ingest_passages(MORE, store, collection="c", encoder=_encoder(model), optimize=False)
    assert (report.written, report.unchanged) == (1, 5)
    after = _info(store)
    assert (before.fingerprint, before.vector_name) == (after.fingerprint, after.vector_name)
    assert after.other_fingerprints == (_encoder(model).info.fingerprint,)
    assert any("was added, after 5 passages were compared" in text for text in caplog.messages)
    with SearchClient.open(store, collection="c", encoder=_encoder(model)) as client:
        assert {hit.pid for hit in client.search("a cold night in london", limit=1)} == {"more"}
    _other_setting(model)  # which version 1 lets pass, and version 2 does not
    with pytest.raises(ModelMismatchError):
        SearchClient.open(store, collection="c", encoder=_encoder(model))


def test_s4_another_configuration_is_not_carried_over(store: str, model: Path) -> None:
    """The stored vectors show it, though its old fingerprint is the same; nothing is written."""
    _other_setting(model)
    with pytest.raises(ModelMismatchError, match="vectors of another configuration"):
        ingest_passages(MORE, store, collection="c", encoder=_encoder(model))
    assert _info(store).other_fingerprints == ()


def test_s4_vectors_of_version_1_fit_a_new_collection(model: Path, tmp_path: Path) -> None:
    """A folder that version 0.1 encoded is ingested into a collection of version 2."""
    old = _as_of_version_1(_encoder(model))
    encode_corpus(PASSAGES, tmp_path / "v", encoder=old)
    place = str(tmp_path / "new")
    ingest_passages(PASSAGES[:2], place, collection="c", encoder=_encoder(model), optimize=False)
    report = ingest_passages(VectorShards(tmp_path / "v"), place, collection="c", optimize=False)
    assert (report.written, report.unchanged) == (3, 2)


def test_s4_an_encode_of_version_1_is_resumed(model: Path, tmp_path: Path) -> None:
    """Its folder keeps one fingerprint, and an ingest takes it."""
    folder, rows = tmp_path / "v", [Passage(str(n), f"river {n}") for n in range(2500)]
    encode_corpus(rows, folder, encoder=_as_of_version_1(_encoder(model)), shard_chunks=1)
    (folder / "manifest.json").unlink()
    (folder / "00002.parquet").unlink()
    report = encode_corpus(rows, folder, encoder=_encoder(model), shard_chunks=1)
    assert report.found == 2048
    assert "2-" not in VectorShards(folder).encoder.fingerprint
    assert len([*VectorShards(folder)]) == 2500
