"""Version 1 of the fingerprint, frozen: collections and vector files of 0.1 contain it.

It covers five settings of the transformer's configuration (`_TRANSFORMER_KEYS`), so a copy with
another number of layers has the same fingerprint. Version 2 (`fingerprint`) covers them all.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.encoding.file_digests import file_sha256, tokenizer_sha256

_VERSION = "msmarco-qdrant fingerprint 1"
# In the order of preference of sentence-transformers and transformers.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_VOCABULARY_FILES = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model")
# Written by the library when saving; they name versions and do not change a vector.
_VOLATILE = frozenset(
    {"__version__", "transformers_version", "_name_or_path"}
    | {"module_input_name", "module_output_name"}
)
_TRANSFORMER_KEYS = ("model_type", "num_attention_heads", "n_heads", "hidden_act", "activation")
# In the order in which the library concatenates the vectors of several modes.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def compute_fingerprint_1(
    directory: Path, prompts: Prompts, max_seq_length: int | None
) -> str | None:
    """Return the sha256 of a model's directory, as 64 hexadecimal digits; None without weights.

    Args:
        directory: A directory in the layout of sentence-transformers, or of transformers alone.
        prompts: Prompts of queries and passages.
        max_seq_length: Maximum tokens of a text.
    """
    modules = _read_modules(directory)
    parts: dict[str, Any] = {
        "version": _VERSION,
        "prompts": [prompts.query, prompts.passage],
        "max_seq_length": max_seq_length,
        "modules": [
            {
                "type": module["type"],
                "config": _read_transformer(module["path"])
                if index == 0
                else _read_config(module["path"]),
                "files": _read_weights(module["path"]),
                "tokenizer": _read_tokenizer(module["path"]),
            }
            for index, module in enumerate(modules)
        ],
    }
    if not parts["modules"][0]["files"]:
        return None  # in a form that version 0.1 did not read
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_tokenizer(directory: Path) -> list[Any]:
    """Return the tokenizer's digest, and True if texts are lowercased before it."""
    path = directory / "tokenizer.json"
    if path.is_file():
        digests = [tokenizer_sha256(path)]
    else:
        present = [directory / name for name in _VOCABULARY_FILES if (directory / name).is_file()]
        digests = [file_sha256(path) for path in present]
    settings = directory / "sentence_bert_config.json"
    lowercases = settings.is_file() and json.loads(settings.read_text("utf-8")).get("do_lower_case")
    return [*digests, bool(lowercases)]


def _read_modules(directory: Path) -> list[dict[str, Any]]:
    listing = directory / "modules.json"
    if not listing.is_file():  # a transformers directory: mean pooling is the default
        return [{"type": "Transformer", "path": directory}]
    return [
        # Only the class name: its package differs between major versions of the library.
        {"type": entry["type"].rpartition(".")[2], "path": directory / entry["path"]}
        for entry in json.loads(listing.read_text("utf-8"))
    ]


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        return {}
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if any(name.startswith("pooling_mode") for name in config):
        return _unify_pooling(config)
    return {name: value for name, value in config.items() if name not in _VOLATILE}


def _read_transformer(directory: Path) -> dict[str, Any]:
    """Return the settings that the weights do not imply; others repeat the library's defaults."""
    config = _read_config(directory)
    return {name: config[name] for name in _TRANSFORMER_KEYS if name in config}


def _unify_pooling(config: dict[str, Any]) -> dict[str, Any]:
    """Return one form for version 6, which writes a name, and earlier ones, which write flags."""
    flags = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)]
    named = config.get("pooling_mode") or flags or ["mean"]
    modes = [named] if isinstance(named, str) else named
    return {"pooling": "+".join(modes), "include_prompt": config.get("include_prompt", True)}


def _read_weights(directory: Path) -> list[str]:
    """Return the digest of the first weight file found, or of all shards of split weights."""
    for name in _WEIGHT_FILES:
        if (directory / name).is_file():
            return [file_sha256(directory / name)]
    return [file_sha256(path) for path in sorted(directory.glob("*.safetensors"))]
