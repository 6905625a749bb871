"""Checks of a model's directory before a library loads it.

The libraries fill some gaps of a directory silently, for example with an empty tokenizer or random
weights, and report others by an error about something else. Each function here names the file and
the next step instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msmarco_qdrant.encoding.fingerprint import POOLING_FLAGS, list_weights, read_json
from msmarco_qdrant.errors import ModelNotFoundError

_SMALL_FILE = 1024  # a Git LFS pointer has about 130 bytes
_LFS_POINTER = b"version https://git-lfs"
_TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model"),
    *("tokenizer.model", "spm.model", "vocab.bpe", "bpe.codes", "tekken.json"),
)
# Tokenizers of bytes or characters, which have no vocabulary.
_WITHOUT_FILES = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
# Weights that torch does not read, with their format.
_OTHER_WEIGHTS = (
    ("*.onnx", "ONNX"),
    ("onnx/*.onnx", "ONNX"),
    ("*.gguf", "GGUF"),
    ("tf_model*.h5", "TensorFlow"),
    ("flax_model*.msgpack", "Flax"),
    ("openvino/*.xml", "OpenVINO"),
    ("openvino_model.xml", "OpenVINO"),
)
# Heads of a task other than encoding; the transformer below it was not trained for vectors.
_HEADS = (
    *("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    *("ForMultipleChoice", "ForNextSentencePrediction", "ForCausalLM", "LMHeadModel"),
)
_WITH_WEIGHTS = ("Dense", "LayerNorm", "LSTM", "CNN", "WeightedLayerPooling")
# Kinds of models of sentence-transformers and PyLate, and what they are.
_OTHER_MODELS = {
    "SparseEncoder": "a SPLADE model (sparse vectors)",
    "ColBERT": "a ColBERT model (a vector per token)",
    "MultiVectorEncoder": "a ColBERT model (a vector per token)",
}
_OTHER_MODULES = {
    **dict.fromkeys(
        ("Router", "Asym"), "a Router model (separate encoders of queries and documents)"
    ),
    **dict.fromkeys(
        ("SpladePooling", "MLMTransformer", "SparseStaticEmbedding", "SparseAutoEncoder"),
        _OTHER_MODELS["SparseEncoder"],
    ),
    **dict.fromkeys(
        ("StaticEmbedding", "WordEmbeddings", "BoW"), "a model of word vectors, not a transformer"
    ),
    "CLIPModel": "a model of images",
}
_ADVICE = "use a bi-encoder (`msmarco-qdrant models` lists some)"


def check_bi_encoder_files(directory: Path) -> None:
    """Check the files of a bi-encoder.

    Raises:
        ModelNotFoundError: With the reason and the next step.
    """
    _run(directory, _bi_encoder_faults(directory))


def check_cross_encoder_files(directory: Path) -> None:
    """Check the files of a cross-encoder.

    Raises:
        ModelNotFoundError: With the reason and the next step.
    """
    _run(directory, _cross_encoder_faults(directory))


def unusable(directory: Path | str, reason: str) -> ModelNotFoundError:
    """Return the error for a directory without a usable model."""
    return ModelNotFoundError(f"the directory {directory} does not hold a usable model: {reason}")


def _run(directory: Path, faults: Iterator[str]) -> None:
    try:
        reason = next(faults, None)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
        raise unusable(directory, f"its JSON files cannot be read: {exc}") from exc
    if reason is not None:
        raise unusable(directory, reason)


def _bi_encoder_faults(directory: Path) -> Iterator[str]:
    yield from _general_faults(directory)
    listing = directory / "modules.json"
    if not listing.is_file():
        yield from _plain_faults(directory)
        return
    entries = json.loads(listing.read_text("utf-8"))
    yield from _module_faults(directory, entries)
    transformer = directory / entries[0]["path"]
    if transformer != directory:
        yield from _lfs_faults(transformer)
    yield from _transformer_faults(transformer)
    for entry in entries[1:]:
        path, kind = directory / entry["path"], entry["type"].rpartition(".")[2]
        yield from _lfs_faults(path)
        if kind in _WITH_WEIGHTS and not list_weights(path):
            yield f"no weights in {path}: copy model.safetensors of its module {kind}"
        if kind == "Pooling":
            yield from _pooling_faults(path)


def _cross_encoder_faults(directory: Path) -> Iterator[str]:
    yield from _general_faults(directory)
    listing = directory / "modules.json"
    entries = json.loads(listing.read_text("utf-8")) if listing.is_file() else [{"path": ""}]
    if any("Pooling" in entry.get("type", "") for entry in entries):
        yield "it is a bi-encoder, which does not score pairs: pass it as the model (model=...)"
    yield from _transformer_faults(directory / entries[0]["path"])


def _general_faults(directory: Path) -> Iterator[str]:
    """Yield what is wrong with the directory as a whole."""
    yield from _lfs_faults(directory)
    if not any(directory.iterdir()):
        yield "it is empty"
    if (directory / "adapter_config.json").is_file():
        base = read_json(directory / "adapter_config.json").get("base_model_name_or_path")
        yield (
            f"it is an adapter of {base or 'another model'}, without that model: merge both with "
            "peft's merge_and_unload() and save the result"
        )
    settings = read_json(directory / "config_sentence_transformers.json")
    if (kind := settings.get("model_type")) in _OTHER_MODELS:
        yield f"it is {_OTHER_MODELS[kind]}: {_ADVICE}"


def _lfs_faults(directory: Path) -> Iterator[str]:
    for path in sorted(directory.glob("*")) if directory.is_dir() else ():
        if path.is_file() and path.stat().st_size < _SMALL_FILE:
            with path.open("rb") as file:
                if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                    yield f"{path} is a Git LFS pointer, not the file: run `git lfs pull` there"


def _module_faults(directory: Path, entries: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with `modules.json`."""
    if not entries:
        yield "its modules.json is empty"
    kinds = [entry["type"].rpartition(".")[2] for entry in entries]
    for kind in kinds:
        if kind in _OTHER_MODULES:
            yield f"it is {_OTHER_MODULES[kind]}: {_ADVICE}"
    for entry in entries:
        yield from _class_faults(entry["type"])
        path = directory / entry["path"]
        if not path.is_dir() and not entry["type"].endswith("Normalize"):
            yield f"modules.json names {path}, which does not exist"
    if "Pooling" not in kinds:
        dense = " but perhaps a ColBERT model (a vector per token)" if "Dense" in kinds else ""
        yield f"its modules.json has no Pooling, so it is not a bi-encoder{dense}: {_ADVICE}"


def _pooling_faults(directory: Path) -> Iterator[str]:
    """Yield why the pooling is not known; the library would use the mean."""
    path = directory / "config.json"
    if not path.is_file():
        yield f"no config.json in {directory}, which names the pooling: copy it"
    config = read_json(path)
    # Earlier versions write a flag per mode; one that is absent has its default, true for mean.
    flags = {name: value for name, value in config.items() if name.startswith("pooling_mode_")}
    is_named = bool(config.get("pooling_mode"))
    is_mean = "pooling_mode" not in config and "pooling_mode_mean_tokens" not in flags
    if not (is_named or is_mean or any(map(flags.get, POOLING_FLAGS))):
        yield (
            f"{path} selects no pooling (each pooling_mode is false or empty): set the one of the "
            "original model to true, such as pooling_mode_mean_tokens"
        )


def _class_faults(name: str) -> Iterator[str]:
    """Yield why the class of a module is not loaded."""
    package = name.partition(".")[0]
    if package == "pylate":
        yield f"it is {_OTHER_MODELS['ColBERT']}: {_ADVICE}"
    if package != "sentence_transformers":
        yield f"its module {name} is code of its own (trust_remote_code), never run: {_ADVICE}"


def _plain_faults(directory: Path) -> Iterator[str]:
    """Yield what is wrong with a directory of transformers alone."""
    yield from _transformer_faults(directory)
    for name in read_json(directory / "config.json").get("architectures") or ():
        if any(str(name).endswith(head) for head in _HEADS):
            yield (
                f"it is a {name} without a modules.json, which was trained for another task than "
                f"encoding passages: {_ADVICE}"
            )


def _transformer_faults(directory: Path) -> Iterator[str]:
    """Yield what is wrong with a transformer and its tokenizer."""
    if not (directory / "config.json").is_file():
        yield from _weight_faults(directory, required=False)
        yield f"no config.json in {directory}: copy it from the original model"
    config = read_json(directory / "config.json")
    if "AutoModel" in (config.get("auto_map") or {}) and not _is_known(config.get("model_type")):
        yield (
            f"its model type {config.get('model_type')} is code of its own (trust_remote_code), "
            f"which is never run: {_ADVICE}"
        )
    yield from _weight_faults(directory, required=True)
    tokenizer = read_json(directory / "tokenizer_config.json").get("tokenizer_class")
    if tokenizer not in _WITHOUT_FILES and not any(
        (directory / name).is_file() for name in _TOKENIZER_FILES
    ):
        yield (
            f"no tokenizer files in {directory} (tokenizer.json or a vocabulary): copy them from "
            f"the original model, or save its tokenizer with save_pretrained({str(directory)!r})"
        )


def _is_known(model_type: object) -> bool:
    """True if transformers itself has this type of model."""
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def _weight_faults(directory: Path, *, required: bool) -> Iterator[str]:
    """Yield missing weights, or missing parts of them."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (directory / name).is_file():
            return
        parts = read_json(directory / f"{name}.index.json").get("weight_map") or {}
        missing = [part for part in sorted({*parts.values()}) if not (directory / part).is_file()]
        if missing:
            yield f"{directory / missing[0]} is missing, which {name}.index.json names: copy it"
        if parts:
            return
    if list_weights(directory):
        yield (
            f"its weights are in parts, but {directory} has neither model.safetensors.index.json "
            "nor pytorch_model.bin.index.json: copy it from the original model"
        )
    for pattern, kind in _OTHER_WEIGHTS:
        if found := next(directory.glob(pattern), None):
            yield (
                f"it has only {kind} weights ({found.name}): convert them to model.safetensors, or "
                "use a copy of the model that has it"
            )
    if required:
        yield f"no weights in {directory}: expected model.safetensors or pytorch_model.bin"
