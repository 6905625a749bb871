"""Folders as users have them: models that load, and those that are refused with the reason.

Each is made from a tiny model by an edit of its copy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tests.encoding.tiny_models import SPECIAL, WORDS, Recipe, word_piece

Edit: TypeAlias = Callable[[Path], Any]
_ST = "sentence_transformers.models"
_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 90868376\n"


def rewrite(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text("utf-8")), **changes}
    kept = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), "utf-8")


def write_modules(model: Path, *modules: tuple[str, str]) -> None:
    """Write a `modules.json` of (path, class) entries."""
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(modules)
    ]
    (model / "modules.json").write_text(json.dumps(entries), "utf-8")
    for path, _ in modules:
        (model / path).mkdir(exist_ok=True)


def make_plain(model: Path) -> None:
    """Leave what transformers alone would save."""
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (model / name).unlink(missing_ok=True)
    shutil.rmtree(model / "1_Pooling")


def only(model: Path, name: str) -> None:
    """Replace the weights by a file of another format."""
    (model / "model.safetensors").unlink()
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"weights")


def edit_weights(model: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the tensors of `model.safetensors`."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def drop_weights(model: Path, part: str) -> None:
    """Remove the weights whose names contain `part`."""

    def change(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    edit_weights(model, change)


def split_weights(model: Path, *, as_bin: bool) -> None:
    """Split the weights into two files with an index."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    name, end = ("pytorch_model", "bin") if as_bin else ("model", "safetensors")
    keys, places = sorted(tensors), {}
    for number, part in enumerate((keys[::2], keys[1::2]), start=1):
        file = f"{name}-{number:05d}-of-00002.{end}"
        content = {key: tensors[key] for key in part}
        if as_bin:
            torch.save(content, model / file)
        else:
            save_file(content, model / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (model / f"{name}.{end}.index.json").write_text(json.dumps(index), "utf-8")


def to_bin(model: Path) -> None:
    """Save the weights as `pytorch_model.bin`."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def to_half(model: Path) -> None:
    """Save the weights in float16."""
    edit_weights(model, lambda it: it.update({name: one.half() for name, one in it.items()}))


def _add_head(tensors: dict[str, Any]) -> None:
    """Add a weight of the masked-language-model head."""
    import torch

    tensors["vocab_projector.bias"] = torch.zeros(3)


def write_tokenizer(model: Path, *tokens: str) -> None:
    """Replace the tokenizer by one of these tokens and the special ones."""
    word_piece([*SPECIAL.values(), *tokens], lowercase=True).save(str(model / "tokenizer.json"))


def make_adapter(model: Path) -> None:
    """Leave what peft saves."""
    for name in ("config.json", "model.safetensors", "modules.json"):
        (model / name).unlink()
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "bert-base-uncased"}')
    (model / "adapter_model.safetensors").write_bytes(b"weights")


def remove_tokenizer(model: Path) -> None:
    """Remove the tokenizer and its configuration."""
    for path in model.glob("*token*"):
        path.unlink()


def remove_length(model: Path) -> None:
    """Remove the maximum length."""
    rewrite(model / "sentence_bert_config.json", max_seq_length=None)
    rewrite(model / "tokenizer_config.json", model_max_length=None)


def empty(model: Path) -> None:
    """Remove everything."""
    shutil.rmtree(model)
    model.mkdir()


def _plain_of(name: str) -> Edit:
    def change(model: Path) -> None:
        make_plain(model)
        rewrite(model / "config.json", architectures=[name])

    return change


def _settings(**changes: Any) -> Edit:
    return lambda model: rewrite(model / "config_sentence_transformers.json", **changes)


def _config(**changes: Any) -> Edit:
    return lambda model: rewrite(model / "config.json", **changes)


def _pooling(**changes: Any) -> Edit:
    return lambda model: rewrite(model / "1_Pooling" / "config.json", **changes)


def _modules(*modules: tuple[str, str]) -> Edit:
    return lambda model: write_modules(model, *modules)


def _part_without_index(model: Path) -> None:
    split_weights(model, as_bin=False)
    (model / "model.safetensors.index.json").unlink()


def _missing_part(model: Path) -> None:
    split_weights(model, as_bin=True)
    (model / "pytorch_model-00002-of-00002.bin").unlink()


_TRANSFORMER, _POOLING = ("", f"{_ST}.Transformer"), ("1_Pooling", f"{_ST}.Pooling")

FLAGS = [f"pooling_mode_{one}" for one in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")]
NO_MODE = "selects no pooling"

REFUSED: Mapping[str, tuple[Edit, str]] = {
    # S1: gaps that the library fills silently
    "s1 no tokenizer": (lambda it: (it / "tokenizer.json").unlink(), "no tokenizer files in"),
    "s1 no tokenizer at all": (
        remove_tokenizer,
        "no tokenizer files in",
    ),
    "s1 empty tokenizer": (write_tokenizer, "its tokenizer has only 5 tokens"),
    "s1 unknowing tokenizer": (
        lambda it: write_tokenizer(it, *(f"zq{number}x" for number in range(140))),
        "its tokenizer has no token of",
    ),
    "s1 ids beyond the table": (
        lambda it: write_tokenizer(it, *WORDS, *(f"w{number}" for number in range(200))),
        "its tokenizer has ids up to",
    ),
    "s1 a layer missing": (lambda it: drop_weights(it, "layer.1."), "its files lack 16 of"),
    "s1 one tensor missing": (lambda it: drop_weights(it, "0.attention.q_lin.bias"), "lack 1 of"),
    "s1 too many layers in the configuration": (_config(n_layers=3), "its files lack 16 of"),
    "s1 three layers too many": (_config(n_layers=5), "its files lack 48 of"),
    "s1 fifteen layers too many": (_config(n_layers=17), "its files lack 240 of"),
    "s1 too few layers in the configuration": (
        _config(n_layers=1),
        "its files have 16 weights of layers that its config.json does not have",
    ),
    "s1 no layers in the configuration": (
        _config(n_layers=0),
        "its files have 32 weights of layers",
    ),
    "s1 other shapes": (_config(hidden_dim=48), "does not hold a usable model"),
    "s1 no pooling": (_modules(_TRANSFORMER), "has no Pooling"),
    "s1 every pooling off": (_pooling(pooling_mode=None, **dict.fromkeys(FLAGS, False)), NO_MODE),
    "s1 only an unknown pooling": (
        _pooling(pooling_mode=None, pooling_mode_mean_tokens=False, pooling_mode_own=True),
        NO_MODE,
    ),
    "s1 an empty pooling": (_pooling(pooling_mode=[]), NO_MODE),
    "s1 no pooling configuration": (
        lambda it: (it / "1_Pooling" / "config.json").unlink(),
        "which names the pooling",
    ),
    "s1 no dense weights": (
        lambda it: (it / "2_Dense" / "model.safetensors").unlink(),
        "no weights in",
    ),
    "s1 no folder of a module": (lambda it: shutil.rmtree(it / "2_Dense"), "which does not exist"),
    "s1 no config.json": (lambda it: (it / "config.json").unlink(), "no config.json in"),
    "s1 broken config.json": (
        lambda it: (it / "config.json").write_text("{"),
        "JSON files cannot be read",
    ),
    "s1 broken modules.json": (
        lambda it: (it / "modules.json").write_text("{"),
        "JSON files cannot be read",
    ),
    "s1 modules.json of another shape": (
        lambda it: (it / "modules.json").write_text('{"a": 1}'),
        "JSON files cannot be read",
    ),
    "s1 empty modules.json": (
        lambda it: (it / "modules.json").write_text("[]"),
        "its modules.json is empty",
    ),
    "s1 a text generator": (_plain_of("GPT2LMHeadModel"), "is a GPT2LMHeadModel without"),
    "s1 a tagger": (
        _plain_of("DistilBertForTokenClassification"),
        "is a DistilBertForTokenClassification without",
    ),
    "s1 a reader": (_plain_of("DistilBertForQuestionAnswering"), "trained for another task"),
    "s1 a cross-encoder": (_plain_of("DistilBertForSequenceClassification"), "cross-encoder"),
    "s1 empty folder": (empty, "it is empty"),
    "s1 weights cut short": (
        lambda it: (it / "model.safetensors").write_bytes(b"\0" * 5000),
        "does not hold a usable model",
    ),
    "s1 unknown default prompt": (_settings(default_prompt_name="nothing"), "nothing"),
    "s1 euclidean similarity": (_settings(similarity_fn_name="euclidean"), "cosine or dot"),
    "s1 unknown model type": (_config(model_type="nothing"), "does not hold a usable model"),
    # C8: what is loaded elsewhere, or not at all
    "c8 pointer instead of weights": (
        lambda it: (it / "model.safetensors").write_text(_LFS),
        "model.safetensors is a Git LFS pointer, not the file: run `git lfs pull`",
    ),
    "c8 pointer instead of a tokenizer": (
        lambda it: (it / "tokenizer.json").write_text(_LFS),
        "tokenizer.json is a Git LFS pointer",
    ),
    "c8 pointer instead of dense weights": (
        lambda it: (it / "2_Dense" / "model.safetensors").write_text(_LFS),
        "is a Git LFS pointer",
    ),
    "c8 adapter": (make_adapter, "it is an adapter of bert-base-uncased, without that model"),
    "c8 a part missing": (_missing_part, "pytorch_model-00002-of-00002.bin is missing"),
    "c8 parts without index": (_part_without_index, "model.safetensors.index.json"),
    "c8 ONNX": (lambda it: only(it, "onnx/model.onnx"), "only ONNX weights"),
    "c8 GGUF": (lambda it: only(it, "model-q8.gguf"), "only GGUF weights"),
    "c8 TensorFlow": (lambda it: only(it, "tf_model.h5"), "only TensorFlow weights"),
    "c8 Flax": (lambda it: only(it, "flax_model.msgpack"), "only Flax weights"),
    "c8 OpenVINO": (lambda it: only(it, "openvino/openvino_model.xml"), "only OpenVINO weights"),
    "c8 no weights": (lambda it: (it / "model.safetensors").unlink(), "no weights in"),
    "c8 custom code": (
        _config(model_type="own", auto_map={"AutoModel": "modeling_own.OwnModel"}),
        "its model type own is code of its own (trust_remote_code), which is never run",
    ),
    "c8 a module of custom code": (
        _modules(("", "custom_st.Transformer"), _POOLING),
        "its module custom_st.Transformer is code of its own",
    ),
    "c8 Router": (
        _modules(("", "sentence_transformers.base.modules.router.Router")),
        "it is a Router model",
    ),
    "c8 SPLADE": (
        _modules(
            ("", "sentence_transformers.sparse_encoder.models.MLMTransformer"),
            ("1_Pooling", "sentence_transformers.sparse_encoder.models.SpladePooling"),
        ),
        "it is a SPLADE model",
    ),
    "c8 a sparse encoder": (_settings(model_type="SparseEncoder"), "it is a SPLADE model"),
    "c8 ColBERT": (
        _modules(_TRANSFORMER, ("1_Dense", "pylate.models.Dense.Dense")),
        "it is a ColBERT model (a vector per token)",
    ),
    "c8 a multi-vector encoder": (_settings(model_type="MultiVectorEncoder"), "a ColBERT model"),
    "c8 static embeddings": (
        _modules(("", f"{_ST}.StaticEmbedding")),
        "it is a model of word vectors",
    ),
}

LOADED: Mapping[str, Edit] = {
    "as saved": lambda _: None,
    "plain transformers": make_plain,
    "c8 split safetensors": lambda it: split_weights(it, as_bin=False),
    "c8 split pytorch_model.bin": lambda it: split_weights(it, as_bin=True),
    "pytorch_model.bin": to_bin,
    "float16 weights": to_half,
    "c4 fewer positions than the length": lambda it: rewrite(
        it / "sentence_bert_config.json", max_seq_length=500
    ),
    "c5 no length": remove_length,
    "unused weights": lambda it: edit_weights(it, _add_head),
    "prompts of other names": _settings(prompts={"search_query": "q: "}),
    "no prompts": _settings(prompts=None, default_prompt_name=None),
    "one pooling flag": _pooling(
        pooling_mode=None, **{**dict.fromkeys(FLAGS, False), "pooling_mode_cls_token": True}
    ),
    "an unknown setting": _config(own_note="abc"),
    "no similarity": _settings(similarity_fn_name=None),
}

BASE = Recipe("distilbert", dense=True)
"""The model that the edits change."""
