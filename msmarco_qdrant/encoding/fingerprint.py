"""What makes two models the same model.

The fingerprint covers what decides a vector: the bytes of the weights, the tokenizer, the modules
after the transformer and their configuration, the length at which a text is cut, and both
prompts. It leaves out what does not: name, path, revision, device, precision, backend. So a model
from the hub, from a package and from a directory is one model, whatever each copy is called.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.records import Prompts
from msmarco_qdrant.errors import ModelNotFoundError

_VERSION = "msmarco-qdrant fingerprint 1"
# In the order in which sentence-transformers and transformers prefer them.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_VOCABULARY_FILES = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model")
# Written by the library on saving; they say which version wrote, not what is computed.
_VOLATILE = frozenset(
    {"__version__", "transformers_version", "_name_or_path"}
    | {"module_input_name", "module_output_name"}
)
_TRANSFORMER_KEYS = ("model_type", "num_attention_heads", "n_heads", "hidden_act", "activation")
# In the order in which the library joins the vectors of several modes.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def fingerprint(directory: Path, prompts: Prompts, max_seq_length: int | None) -> str:
    """Sha256 of a model's directory, as 64 hexadecimal digits.

    Args:
        directory: A directory in the layout of sentence-transformers, or of transformers alone.
        prompts: What is put in front of queries and passages.
        max_seq_length: Tokens after which a text is cut.

    Raises:
        ModelNotFoundError: If the directory holds no weights.
    """
    modules = _modules(directory)
    parts: dict[str, Any] = {
        "version": _VERSION,
        "prompts": [prompts.query, prompts.passage],
        "max_seq_length": max_seq_length,
        "modules": [
            {
                "type": module["type"],
                "config": _transformer(module["path"]) if index == 0 else _config(module["path"]),
                "files": _weights(module["path"]),
                "tokenizer": _tokenizer(module["path"]),
            }
            for index, module in enumerate(modules)
        ],
    }
    if not parts["modules"][0]["files"]:
        raise ModelNotFoundError(
            f"{directory} holds no weights: expected one of {', '.join(_WEIGHT_FILES)}"
        )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Sha256 of a file, remembered for as long as its size and time stay."""
    return _file_sha256(*_state(path))


def _state(path: Path) -> tuple[Path, int, int]:
    """What a remembered digest holds for: the file, its size in bytes, its time in nanoseconds."""
    status = path.stat()
    return path.resolve(), status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _file_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tokenizer(directory: Path) -> list[Any]:
    """The tokenizer's digest, and whether texts are lowercased before it sees them."""
    path = directory / "tokenizer.json"
    if path.is_file():
        digests = [_tokenizer_sha256(*_state(path))]
    else:
        present = [directory / name for name in _VOCABULARY_FILES if (directory / name).is_file()]
        digests = [file_sha256(path) for path in present]
    settings = directory / "sentence_bert_config.json"
    lowercases = settings.is_file() and json.loads(settings.read_text("utf-8")).get("do_lower_case")
    return [*digests, bool(lowercases)]


@lru_cache(maxsize=64)
def _tokenizer_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    """Digest of a `tokenizer.json` without what the last call to it left: where to cut and pad."""
    content = json.loads(path.read_text("utf-8"))
    for state in ("truncation", "padding"):
        content.pop(state, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _modules(directory: Path) -> list[dict[str, Any]]:
    listing = directory / "modules.json"
    if not listing.is_file():  # a plain transformers directory: mean pooling is the default
        return [{"type": "Transformer", "path": directory}]
    return [
        # Only the class name: its package moved between major versions of the library.
        {"type": entry["type"].rpartition(".")[2], "path": directory / entry["path"]}
        for entry in json.loads(listing.read_text("utf-8"))
    ]


def _config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        return {}
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if any(name.startswith("pooling_mode") for name in config):
        return _pooling(config)
    return {name: value for name, value in config.items() if name not in _VOLATILE}


def _transformer(directory: Path) -> dict[str, Any]:
    """What the weights do not say; the rest of that file repeats the library's defaults."""
    config = _config(directory)
    return {name: config[name] for name in _TRANSFORMER_KEYS if name in config}


def _pooling(config: dict[str, Any]) -> dict[str, Any]:
    """One form for what version 6 writes as a name and earlier ones as a row of flags."""
    flags = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)]
    named = config.get("pooling_mode") or flags or ["mean"]
    modes = [named] if isinstance(named, str) else named
    return {"pooling": "+".join(modes), "include_prompt": config.get("include_prompt", True)}


def _weights(directory: Path) -> list[str]:
    """Digests of the first weight file there is, or of all shards of weights that were split."""
    for name in _WEIGHT_FILES:
        if (directory / name).is_file():
            return [file_sha256(directory / name)]
    return [file_sha256(path) for path in sorted(directory.glob("*.safetensors"))]
