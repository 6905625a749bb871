"""The fingerprint of a model: equal for two copies of the same model.

It covers everything that determines a vector: the bytes of the weights, the tokenizer and its
configuration, every module and its whole configuration, the maximum length of a text, and both
prompts. It excludes name, path, revision, device, precision and backend. So copies from the hub,
from a package and from a directory have the same fingerprint.

A setting counts unless it is listed below, so an unknown setting makes another model. A setting
without a value (null, {} or []) and one with its default of `_DEFAULTS` are left out, because
versions of transformers (4, 5) and sentence-transformers (2 to 6) differ in which they write.

Version 2 begins with "2-"; version 1 (`fingerprint_1`), without a prefix, is in collections of 0.1.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.encoder_types import FINGERPRINT_2, Prompts
from msmarco_qdrant.encoding.file_digests import file_sha256, tokenizer_sha256
from msmarco_qdrant.errors import ModelNotFoundError

_VERSION = "msmarco-qdrant fingerprint 2"

# Each cannot change a vector:
_IGNORED = frozenset(
    # names, versions and links that the libraries write when saving
    {"_name_or_path", "name_or_path", "transformers_version", "__version__", "_commit_hash"}
    | {"special_tokens_map_file", "tokenizer_file", "is_local", "local_files_only"}
    # the class with the head that was trained; a bi-encoder loads none (`model_type` counts)
    | {"architectures"}
    # precision and kernel, which are options of this package; the weights' bytes count
    | {"torch_dtype", "dtype", "_attn_implementation_autoset"}
    # training and text generation only
    | {"gradient_checkpointing", "use_cache"}
    # how token ids become text, and how chats become text
    | {"clean_up_tokenization_spaces", "chat_template"}
    # lengths and padding: the maximum length in effect counts, and padding is masked
    | {"max_seq_length", "model_max_length", "max_length", "stride", "truncation_strategy"}
    | {"padding_side", "pad_to_multiple_of"}
    # the library behind the tokenizer; its `tokenizer.json` counts
    | {"backend"}
    # prompts and similarity in effect are compared by themselves
    | {"prompts", "default_prompt_name", "similarity_fn_name"}
    # sizes that a pooling module repeats from the transformer
    | {"word_embedding_dimension", "embedding_dimension"}
)
# Values that mean the same as their absence, because one version writes them and another does not.
_DEFAULTS: dict[str, Any] = {
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "tie_word_embeddings": True,
    "position_embedding_type": "absolute",
    "do_lower_case": False,  # of `sentence_bert_config.json`; tokenizers keep theirs, see below
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "pad_token_type_id": 0,
    "truncation_side": "right",
    "model_type": "SentenceTransformer",
}
# In the order in which the library concatenates the vectors of several modes.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Defaults of the modules after the transformer.
_MODULE_DEFAULTS: dict[str, Any] = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}
_TRANSFORMER_DEFAULTS: dict[str, Any] = {"module_output_name": "token_embeddings"}
_VOCABULARY_FILES = (
    *("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model"),
    *("tokenizer.model", "bpe.codes", "added_tokens.json"),
)
_GENERIC_TOKENIZERS = frozenset({"PreTrainedTokenizer", "TokenizersBackend"})


def compute_fingerprint(directory: Path, prompts: Prompts, max_seq_length: int | None) -> str:
    """Return version 2 of a model's fingerprint: "2-" and 64 hexadecimal digits (sha256).

    Args:
        directory: A directory in the layout of sentence-transformers, or of transformers alone.
        prompts: Prompts of queries and passages.
        max_seq_length: Maximum tokens of a text.

    Raises:
        ModelNotFoundError: If the directory has no weights.
    """
    modules = [{"type": kind, **_describe_module(path)} for kind, path in list_modules(directory)]
    if not modules[0]["weights"]:
        raise ModelNotFoundError(
            f"{directory} has no weights: expected model.safetensors, pytorch_model.bin, or the "
            "parts of one of them with their index"
        )
    parts = {
        "version": _VERSION,
        "prompts": [prompts.query, prompts.passage],
        "max_seq_length": max_seq_length,
        "settings": _clean(read_json(directory / "config_sentence_transformers.json"), _DEFAULTS),
        "modules": modules,
    }
    return FINGERPRINT_2 + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def list_modules(directory: Path) -> list[tuple[str, Path]]:
    """Return the class name and the directory of each module.

    Only the class name: its package differs between major versions of the library.
    """
    listing = directory / "modules.json"
    if not listing.is_file():  # a transformers directory: mean pooling is the default
        return [("Transformer", directory)]
    return [
        (entry["type"].rpartition(".")[2], directory / entry["path"])
        for entry in json.loads(listing.read_text("utf-8"))
    ]


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, {} without the file."""
    content: Any = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} must contain a JSON object")  # noqa: TRY004  # as for bad JSON
    return content


def list_weights(directory: Path) -> list[Path]:
    """Return the files of a module's weights, in the order of preference of transformers."""
    for name, parts in (
        ("model.safetensors", "model-*.safetensors"),
        ("pytorch_model.bin", "pytorch_model-*.bin"),
    ):
        if (directory / name).is_file():
            return [directory / name]
        if found := sorted(directory.glob(parts)):
            return found
    return []


def _describe_module(directory: Path) -> dict[str, Any]:
    config = read_json(directory / "config.json")
    defaults = {**_DEFAULTS, **_MODULE_DEFAULTS}
    settings: dict[str, Any] = {}
    for path in sorted(directory.glob("sentence_*_config.json")):
        settings |= _clean(read_json(path), {**_DEFAULTS, **_TRANSFORMER_DEFAULTS})
    return {
        "config": _clean(_unify_pooling(config), defaults),
        "settings": settings,
        "weights": [file_sha256(path) for path in list_weights(directory)],
        "tokenizer": _describe_tokenizer(directory),
    }


def _clean(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that count."""
    return {
        name: value
        for name, value in config.items()
        if name not in _IGNORED
        and value not in (None, {}, [])
        and not (name in defaults and value == defaults[name])
    }


def _unify_pooling(config: dict[str, Any]) -> dict[str, Any]:
    """Return one form for version 6, which writes a name, and earlier ones, which write flags."""
    if not any(name.startswith("pooling_mode") for name in config):
        return config
    others = {name: value for name, value in config.items() if not name.startswith("pooling_mode")}
    pooling, include_prompt = pooling_of(config)
    return {**others, "pooling": pooling, "include_prompt": include_prompt}


def pooling_of(config: dict[str, Any]) -> tuple[str, Any]:
    """Return the pooling of a module's configuration, such as "mean", and if prompts are in it."""
    flags = [mode for flag, mode in POOLING_FLAGS.items() if config.get(flag)]
    named = config.get("pooling_mode") or flags or ["mean"]
    modes = [named] if isinstance(named, str) else named
    return "+".join(modes), config.get("include_prompt", True)


def _describe_tokenizer(directory: Path) -> dict[str, Any]:
    """Return digests of a tokenizer's files, and the settings that count."""
    path = directory / "tokenizer.json"
    files = [path] if path.is_file() else []
    files = files or [file for name in _VOCABULARY_FILES if (file := directory / name).is_file()]
    settings = {
        **read_json(directory / "special_tokens_map.json"),
        **read_json(directory / "tokenizer_config.json"),
    }
    if not files and not settings:
        return {}
    settings = {name: _token_text(value) for name, value in settings.items()}
    lowercases = settings.pop("do_lower_case", None)
    name = str(settings.pop("tokenizer_class", "")).removesuffix("Fast")
    added = settings.pop("added_tokens_decoder", None) or {}
    return {
        "files": [
            tokenizer_sha256(file) if file.name == "tokenizer.json" else file_sha256(file)
            for file in files
        ],
        "class": "" if name in _GENERIC_TOKENIZERS else name,
        "lowercases": lowercases,
        "added": _tokens_missing_in(path, added),
        "settings": _clean(settings, _DEFAULTS),
    }


def _token_text(value: Any) -> Any:
    """Return the text of a special token, which is stored alone or in an object."""
    return value["content"] if isinstance(value, dict) and "content" in value else value


def _tokens_missing_in(path: Path, added: dict[str, Any]) -> dict[str, Any]:
    """Return the tokens of `added_tokens_decoder` that `tokenizer.json` does not contain."""
    known = {token["content"] for token in read_json(path).get("added_tokens") or ()}
    return {number: token for number, token in added.items() if _token_text(token) not in known}
