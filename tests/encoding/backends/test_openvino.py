"""The forward pass by OpenVINO against the library's own, and what is kept between starts."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import pytest

from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.backends.base import Task
from msmarco_qdrant.encoding.backends.openvino import OpenVinoBackend, is_installed
from msmarco_qdrant.encoding.backends.openvino_cache import CachedModel, default_cache
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError, MissingExtraError, UsageError
from tests.encoding.conftest import Library, Tiny
from tests.encoding.test_bi_encoder import RECIPES, TEXTS, _recipe_id, _worst_cosine
from tests.encoding.tiny_models import (
    ARCHITECTURES,
    Architecture,
    Recipe,
    randomize,
    save_plain,
    save_tiny,
    texts_of_lengths,
)
from tests.processors import use_processor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

NO_PROMPTS: dict[Task, int | None] = {"query": None, "document": None}

NEEDS_OPENVINO = "OpenVINO is not installed: pip install 'msmarco-qdrant[openvino]'"
needs_openvino = pytest.mark.skipif(not is_installed(), reason=NEEDS_OPENVINO)
Backends: TypeAlias = Callable[..., OpenVinoBackend]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests that only want vectors: a model is converted once a session."""
    return tmp_path_factory.mktemp("openvino")


@pytest.fixture
def backend(tiny: Tiny, library: Library, shared_cache: Path) -> Backends:
    """A function from a recipe to its model, run by OpenVINO."""
    if not is_installed():
        pytest.skip(NEEDS_OPENVINO)

    def made(
        recipe: Recipe, precision: str | None = None, *, cache: Path = shared_cache
    ) -> OpenVinoBackend:
        directory = tiny(recipe)
        return OpenVinoBackend(
            library(directory), NO_PROMPTS, str(directory), precision, cache=cache
        )

    return made


def _tokenized(model: SentenceTransformer, texts: Sequence[str], prompt: str = "") -> Tokenized:
    features: dict[str, Any] = model.preprocess(
        list(texts),
        prompt=prompt or None,
        processing_kwargs={"common": {"return_tensors": None}, "text": {"padding": False}},
    )
    rows: list[list[int]] = features["input_ids"]
    return Tokenized.from_lengths(np.concatenate(rows).astype(np.int32), [len(row) for row in rows])


@pytest.fixture
def tokens(library: Library, tiny: Tiny) -> Tokenized:
    """The token ids of TEXTS for `Recipe()`."""
    return _tokenized(library(tiny(Recipe())), TEXTS)


def _vectors(backend: OpenVinoBackend, texts: Tokenized) -> NDArray[np.float32]:
    return backend.launch(texts, "document").result()


# ---- the same vectors as the library's -------------------------------------------------------


# One recipe, and one with every module; the others run with `make test-all`.
_QUICK = (RECIPES[0], RECIPES[-2])
every_recipe = pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, marks=() if recipe in _QUICK else pytest.mark.slow)
        for recipe in RECIPES
    ],
    ids=_recipe_id,
)


@pytest.mark.slow
@every_recipe
def test_vectors_stay_within_cosine(
    recipe: Recipe, backend: Backends, library: Library, tiny: Tiny
) -> None:
    """In the precision it chooses itself, every vector is within cosine 0.999 of float32."""
    model = library(tiny(recipe))
    vectors = _vectors(backend(recipe), _tokenized(model, TEXTS))
    expected = model.encode(TEXTS)
    assert np.float32 == vectors.dtype
    assert expected.shape == vectors.shape
    assert _worst_cosine(expected, vectors) >= 0.999


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_vectors_in_float32_are_the_library_s(
    architecture: Architecture, backend: Backends, library: Library, tiny: Tiny
) -> None:
    """They are equal to 1e-4 of a length around 6, and so they are in batches of one."""
    recipe = Recipe(architecture)
    model, exact = library(tiny(recipe)), backend(recipe, "float32")
    texts = _tokenized(model, TEXTS)
    alone = [_vectors(exact, texts.take(np.array([row]))) for row in range(len(texts))]
    np.testing.assert_allclose(model.encode(TEXTS), _vectors(exact, texts), rtol=0, atol=1e-4)
    np.testing.assert_allclose(_vectors(exact, texts), np.concatenate(alone), rtol=0, atol=1e-4)
    assert ("openvino", "cpu", "float32") == (exact.name, exact.device, exact.precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        ARCHITECTURES[0],
        *(pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES[1:]),
    ],
)
def test_int8_stays_within_its_bound(
    architecture: Architecture, backend: Backends, library: Library, tiny: Tiny
) -> None:
    """It is within cosine 0.98 of float32, and not the same: its weights have been rounded."""
    model = library(tiny(Recipe(architecture)))
    rounded = backend(Recipe(architecture), "int8")
    worst = _worst_cosine(model.encode(TEXTS), _vectors(rounded, _tokenized(model, TEXTS)))
    assert 0.98 <= worst < 0.99999
    assert "int8" == rounded.precision


def test_a_result_outlives_the_next_pass(backend: Backends, tokens: Tokenized) -> None:
    """Vectors are the caller's own: later passes do not write into them."""
    runner = backend(Recipe())
    first = runner.launch(tokens.take(np.array([0, 1])), "document")
    before = first.result().copy()
    runner.launch(tokens.take(np.array([2, 3])), "document").result()
    np.testing.assert_array_equal(before, first.result())


@pytest.mark.slow
@needs_openvino
def test_a_prompt_may_be_left_out_of_the_pooling(tmp_path: Path, library: Library) -> None:
    """With include_prompt=False the tokens of the prompt are not pooled, as the library does."""

    def without_prompt(model: SentenceTransformer) -> None:
        cast("Any", model[1]).include_prompt = False

    recipe = Recipe("bert", prompts={"document": "what is "})
    model = library(save_tiny(tmp_path / "model", recipe, without_prompt))
    length: Any = model.preprocess(["a"], prompt="what is ")["prompt_length"]
    lengths: dict[Task, int | None] = {"query": None, "document": length}
    runner = OpenVinoBackend(model, lengths, "prompt", "float32", cache=tmp_path)
    texts = _tokenized(model, TEXTS, "what is ")
    expected = model.encode(TEXTS, prompt="what is ")
    np.testing.assert_allclose(expected, runner.launch(texts, "document").result(), atol=1e-4)
    assert _worst_cosine(expected, runner.launch(texts, "query").result()) < 0.999


# ---- what is kept ----------------------------------------------------------------------------


def _only_file(cache: Path) -> Path:
    [file] = cache.iterdir()
    return file


@pytest.fixture(scope="module")
def saved(
    tiny: Tiny, library: Library, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, NDArray[np.float32]]:
    """The file of a compiled model in a new folder, and the vectors of TEXTS; read only."""
    folder, directory = tmp_path_factory.mktemp("saved") / "new" / "folder", tiny(Recipe())
    model = library(directory)
    backend = OpenVinoBackend(model, NO_PROMPTS, str(directory), cache=folder)
    return _only_file(folder), _vectors(backend, _tokenized(model, TEXTS))


def test_a_second_start_loads_the_file(
    backend: Backends, tokens: Tokenized, saved: tuple[Path, NDArray[np.float32]]
) -> None:
    """It leaves the file alone, and the vectors are the same."""
    file, expected = saved
    before = file.stat()
    second = _vectors(backend(Recipe(), cache=file.parent), tokens)
    after = _only_file(file.parent).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    np.testing.assert_array_equal(expected, second)


@needs_openvino
@pytest.mark.usefixtures("in_float32")
def test_precisions_and_models_have_their_own_files(tmp_path: Path) -> None:
    """Another precision, model or processor has another file."""
    core: Any = None
    names = {
        CachedModel(tmp_path, fingerprint, precision, core, {"precision": precision}).path.name
        for fingerprint in ("a model", "another")
        for precision in ("float32", "int8")
    }
    with use_processor("arm"):
        names.add(CachedModel(tmp_path, "a model", "int8", core, {"precision": "int8"}).path.name)
    assert 5 == len(names)


def _flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def _foreign(_content: bytes) -> bytes:
    """A valid checksum before bytes that OpenVINO never exported."""
    return hashlib.sha256(b"no model").hexdigest().encode() + b"\nno model"


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_bit,
        _foreign,
        pytest.param(lambda content: content[: len(content) // 2], marks=pytest.mark.slow),
        pytest.param(lambda _: b"", marks=pytest.mark.slow),
    ],
    ids=["bit", "foreign", "truncated", "empty"],
)
def test_a_damaged_file_is_replaced(
    damage: Callable[[bytes], bytes],
    backend: Backends,
    tokens: Tokenized,
    saved: tuple[Path, NDArray[np.float32]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning names it, the vectors are right, and the next start loads a valid file."""
    file, expected = saved
    copy = tmp_path / file.name
    copy.write_bytes(damage(file.read_bytes()))
    np.testing.assert_array_equal(expected, _vectors(backend(Recipe(), cache=tmp_path), tokens))
    assert [str(copy) in record.getMessage() for record in caplog.records] == [True]
    caplog.clear()
    np.testing.assert_array_equal(expected, _vectors(backend(Recipe(), cache=tmp_path), tokens))
    assert not caplog.records


@pytest.mark.slow
def test_a_file_of_another_model_is_not_believed(
    backend: Backends,
    tokens: Tokenized,
    saved: tuple[Path, NDArray[np.float32]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A valid file under the wrong name is detected by its vectors and replaced."""
    backend(Recipe(seed=1), cache=tmp_path / "wrong")
    copy = tmp_path / "right" / saved[0].name
    copy.parent.mkdir()
    copy.write_bytes(_only_file(tmp_path / "wrong").read_bytes())
    np.testing.assert_array_equal(saved[1], _vectors(backend(Recipe(), cache=copy.parent), tokens))
    assert "wrong vectors" in caplog.text


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(
    backend: Backends,
    tokens: Tokenized,
    saved: tuple[Path, NDArray[np.float32]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The model runs without it; there is one warning."""
    (tmp_path / "file").touch()
    vectors = _vectors(backend(Recipe(), cache=tmp_path / "file" / "cache"), tokens)
    np.testing.assert_array_equal(saved[1], vectors)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 == len([record for record in warnings if "cannot cache" in record.getMessage()])


def test_the_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`XDG_CACHE_HOME` is heeded; without it the folder is under the home directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path / "msmarco-qdrant" / "openvino" == default_cache()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path / ".cache" / "msmarco-qdrant" / "openvino" == default_cache()


# ---- what cannot be --------------------------------------------------------------------------


def test_an_invalid_precision_is_refused(backend: Backends) -> None:
    """The error names the supported ones."""
    with pytest.raises(
        UsageError, match="precision must be float32, bfloat16, int8 with OpenVINO, got 'float16'"
    ):
        backend(Recipe(), "float16")


def test_a_forward_pass_that_fails(backend: Backends) -> None:
    """OpenVINO's own error becomes ours, and the next batch is encoded."""
    runner = backend(Recipe())
    with pytest.raises(EncodingError, match="1 texts of 500 tokens, the longest of 500, failed"):
        _vectors(runner, Tokenized.from_lengths(np.full(500, 7, np.int32), [500]))
    assert np.isfinite(_vectors(runner, Tokenized.from_lengths(np.full(9, 7, np.int32), [9]))).all()


def test_without_the_extra(tiny: Tiny, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what to install."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'msmarco-qdrant\[openvino\]'"):
        OpenVinoBackend(library(tiny(Recipe())), NO_PROMPTS, "none")


@needs_openvino
def test_nothing_is_sent_to_openvino_s_makers(tmp_path: Path) -> None:
    """Importing it reaches no telemetry: the package is not loaded, nor its identity written."""
    script = (
        "import sys\n"
        "from msmarco_qdrant.encoding.backends.openvino import _import_openvino\n"
        "_import_openvino()\n"
        "sys.exit('openvino_telemetry' in sys.modules)"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert 0 == done.returncode
    assert [] == list(tmp_path.iterdir())


@needs_openvino
@pytest.mark.slow
def test_c6_a_sliding_window_beside_padding(
    tmp_path: Path,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Short texts padded beyond the window have vectors: what is not finite is tried by torch."""
    from transformers import ModernBertConfig, ModernBertModel

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = save_plain(tmp_path / "plain", Recipe("bert", seed=3))
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    sizes["global_attn_every_n_layers"] = 2
    config = ModernBertConfig(
        vocab_size=len(json.loads((plain / "tokenizer.json").read_text())["model"]["vocab"]),
        num_attention_heads=4,
        max_position_embeddings=512,
        local_attention=8,
        pad_token_id=0,
        **sizes,
    )
    model = ModernBertModel(config)
    randomize(model, 0)
    model.save_pretrained(plain)
    texts = texts_of_lengths([2, 3, 60])
    encoder = load_encoder(plain, device="cpu", backend="openvino", precision="float32")
    theirs = library(plain).encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_queries(texts), theirs, atol=1e-4)
    assert any("not finite in float32 by openvino" in text for text in caplog.messages)
