"""A transformer's weights and settings from its files, without the libraries that trained it.

The models of the family (BERT, DistilBERT, RoBERTa, Electra, MPNet; mean or "cls" pooling) need a
dozen matrix products per layer. `backends.numpy_forward`, `backends.fused` and `backends.cuda`
compute them from these arrays, without importing transformers or sentence-transformers, which takes
longer than a search. `proof` and `backends.cuda_choice` compare them before they are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msmarco_qdrant.encoding.fingerprint import list_modules, pooling_of, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Types of models whose weights have BERT's names.
_LIKE_BERT = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
# Of these, positions start after the padding token's id.
_LIKE_ROBERTA = frozenset({"camembert", "roberta", "xlm-roberta"})
_DEFAULT_EPS = 1e-12
# MPNet's: a bias for each small distance, and for ranges of larger ones up to the last.
_MPNET_PAD_ID, _SMALL_DISTANCES, _BIASES_OF_A_SIDE, _LAST_DISTANCE = 1, 8, 16, 128


class Linear(NamedTuple):
    """A linear layer: float32 `(outputs, inputs)` and `(outputs,)`."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


class Norm(NamedTuple):
    """A layer normalization: two float32 `(hidden,)`."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class CompactLayer:
    """A layer of the transformer.

    Attributes:
        qkv: Queries, keys and values in one product.
        out: The output of attention.
        attention_norm: Its normalization.
        inner: The wide layer, before GELU.
        outer: The layer after it.
        norm: Its normalization.
    """

    qkv: Linear
    out: Linear
    attention_norm: Norm
    inner: Linear
    outer: Linear
    norm: Norm


@dataclass(frozen=True, slots=True, eq=False)
class CompactModel:
    """A bi-encoder as arrays.

    Attributes:
        words: Embeddings of tokens, float32 `(vocabulary, hidden)`.
        positions: Embeddings of positions and of segment 0, float32 `(positions, hidden)`.
        norm: Their normalization.
        layers: The layers.
        heads: Heads of attention.
        eps: Epsilon of the normalizations.
        pooling: "mean" or "cls".
        normalizes: True if a module scales vectors to unit length.
        pad_id: RoBERTa's and MPNet's id of padding, None for others. Such a token in a text has the
            last row of `positions`, and the positions of later tokens do not count it.
        biases: MPNet's addends of the scores of attention, None for others: float32
            `(heads, distances)`. The middle column is that of a token's own place, those after it
            of later tokens, and the first and last ones also of all that are farther.
    """

    words: NDArray[np.float32]
    positions: NDArray[np.float32]
    norm: Norm
    layers: tuple[CompactLayer, ...]
    heads: int
    eps: float
    pooling: Literal["mean", "cls"]
    normalizes: bool
    pad_id: int | None = None
    biases: NDArray[np.float32] | None = None

    def score_biases(self, length: int) -> NDArray[np.float32] | None:
        """Return `biases` of each query and key of a text: float32 `(heads, length, length)`."""
        import numpy as np

        if self.biases is None:
            return None
        places, last = np.arange(length), self.biases.shape[1] // 2
        distances = np.clip(places - places[:, None], -last, last)
        scores: NDArray[np.float32] = self.biases[:, distances + last]
        return scores


def read_compact(directory: Path) -> CompactModel | None:
    """Return the model of a directory; None if it has other modules, settings or files."""
    if not _has_library_modules(directory):
        return None
    modules = list_modules(directory)
    kinds, pooling = [kind for kind, _ in modules], _pooling(modules)
    if kinds[:1] != ["Transformer"] or kinds[2:] not in ([], ["Normalize"]) or pooling is None:
        return None
    transformer = modules[0][1]
    config = read_json(transformer / "config.json")
    path = transformer / "model.safetensors"
    # An adapter, which the library adds to the weights, has files of its own.
    is_adapted = (transformer / "adapter_config.json").exists()
    if not _is_known(config) or not path.is_file() or is_adapted:
        return None
    try:
        weights = _Weights(path)
        return _build(weights, config, pooling, normalizes=kinds[2:] == ["Normalize"])
    except (LookupError, TypeError):  # of another layout, or in bfloat16, which NumPy lacks
        return None


def _has_library_modules(directory: Path) -> bool:
    """False if a module is of another package, whose code may change at any time."""
    listing = directory / "modules.json"
    entries = json.loads(listing.read_text("utf-8")) if listing.is_file() else []
    return all(entry["type"].startswith("sentence_transformers.") for entry in entries)


def _pooling(modules: list[tuple[str, Path]]) -> Literal["mean", "cls"] | None:
    if len(modules) == 1:  # a transformers directory: mean pooling is the default
        return "mean"
    kind, path = modules[1]
    mode, include_prompt = pooling_of(read_json(path / "config.json"))
    if kind != "Pooling" or not include_prompt:
        return None
    return "mean" if mode == "mean" else "cls" if mode == "cls" else None


def _is_known(config: Mapping[str, Any]) -> bool:
    """True for settings that the forward passes compute; a test of each is in `proof`."""
    kind, hidden = config.get("model_type"), config.get("hidden_size", config.get("dim"))
    return (
        (kind in _LIKE_BERT or kind in ("distilbert", "mpnet"))
        and config.get("hidden_act", config.get("activation")) == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder")
        and config.get("embedding_size", hidden) == hidden
    )


class _Weights:
    """The arrays of a file by name, without the prefix of the model that it was trained as."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            names = {_without_prefix(name): name for name in file.keys()}  # noqa: SIM118
            self._arrays = {short: file.get_tensor(name) for short, name in names.items()}

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        import numpy as np

        array: NDArray[np.float32] = np.ascontiguousarray(self._arrays[name], np.float32)
        return array

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def linear(self, *names: str) -> Linear:
        """Return one or several layers as one, in the order of their names."""
        import numpy as np

        weights = [self[f"{name}.weight"] for name in names]
        biases = [self[f"{name}.bias"] for name in names]
        if len(names) == 1:
            return Linear(weights[0], biases[0])
        return Linear(np.concatenate(weights), np.concatenate(biases))

    def norm(self, name: str) -> Norm:
        return Norm(self[f"{name}.weight"], self[f"{name}.bias"])


def _without_prefix(name: str) -> str:
    for start in ("embeddings.", "encoder.", "transformer."):
        before, found, after = name.partition(start)
        if found and before.count(".") <= 1:
            return found + after
    return name


def _build(
    weights: _Weights,
    config: Mapping[str, Any],
    pooling: Literal["mean", "cls"],
    *,
    normalizes: bool,
) -> CompactModel:
    import numpy as np

    kind = config["model_type"]
    positions = weights["embeddings.position_embeddings.weight"]
    pad_id = int(config["pad_token_id"]) if kind in _LIKE_ROBERTA else None
    pad_id = _MPNET_PAD_ID if kind == "mpnet" else pad_id
    if pad_id is not None:
        positions = np.concatenate([positions[pad_id + 1 :], positions[pad_id : pad_id + 1]])
    if (segments := "embeddings.token_type_embeddings.weight") in weights:
        positions = positions + weights[segments][0]
    layers = {"distilbert": _distilbert_layers, "mpnet": _mpnet_layers}.get(kind, _bert_layers)
    table = "encoder.relative_attention_bias.weight"
    return CompactModel(
        words=weights["embeddings.word_embeddings.weight"],
        positions=positions,
        norm=weights.norm("embeddings.LayerNorm"),
        layers=tuple(layers(weights, config)),
        heads=int(config["n_heads" if kind == "distilbert" else "num_attention_heads"]),
        eps=float(config.get("layer_norm_eps", _DEFAULT_EPS)),
        pooling=pooling,
        normalizes=normalizes,
        pad_id=pad_id,
        biases=_mpnet_biases(weights[table]) if kind == "mpnet" else None,
    )


def _bert_layers(weights: _Weights, config: Mapping[str, Any]) -> Iterator[CompactLayer]:
    for number in range(int(config["num_hidden_layers"])):
        layer = f"encoder.layer.{number}"
        parts = (f"{layer}.attention.self.{part}" for part in ("query", "key", "value"))
        yield CompactLayer(
            qkv=weights.linear(*parts),
            out=weights.linear(f"{layer}.attention.output.dense"),
            attention_norm=weights.norm(f"{layer}.attention.output.LayerNorm"),
            inner=weights.linear(f"{layer}.intermediate.dense"),
            outer=weights.linear(f"{layer}.output.dense"),
            norm=weights.norm(f"{layer}.output.LayerNorm"),
        )


def _mpnet_layers(weights: _Weights, config: Mapping[str, Any]) -> Iterator[CompactLayer]:
    for number in range(int(config["num_hidden_layers"])):
        layer = f"encoder.layer.{number}"
        yield CompactLayer(
            qkv=weights.linear(*(f"{layer}.attention.attn.{part}" for part in "qkv")),
            out=weights.linear(f"{layer}.attention.attn.o"),
            attention_norm=weights.norm(f"{layer}.attention.LayerNorm"),
            inner=weights.linear(f"{layer}.intermediate.dense"),
            outer=weights.linear(f"{layer}.output.dense"),
            norm=weights.norm(f"{layer}.output.LayerNorm"),
        )


def _mpnet_biases(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return MPNet's `biases`, as `MPNetEncoder.compute_position_bias` of transformers has them.

    Args:
        table: float32 `(2 * _BIASES_OF_A_SIDE, heads)`, the second half of later tokens.
    """
    import numpy as np

    distances = np.arange(-_LAST_DISTANCE, _LAST_DISTANCE + 1)
    far, small = np.abs(distances), _SMALL_DISTANCES
    ratio = np.log(np.maximum(far, small).astype(np.float32) / small)
    ratio /= np.float32(np.log(_LAST_DISTANCE / small))
    ranges = small + (ratio * (_BIASES_OF_A_SIDE - small)).astype(np.int64)
    rows = np.where(far < small, far, np.minimum(ranges, _BIASES_OF_A_SIDE - 1))
    return np.ascontiguousarray(table[rows + _BIASES_OF_A_SIDE * (distances > 0)].T)


def _distilbert_layers(weights: _Weights, config: Mapping[str, Any]) -> Iterator[CompactLayer]:
    for number in range(int(config["n_layers"])):
        layer = f"transformer.layer.{number}"
        yield CompactLayer(
            qkv=weights.linear(*(f"{layer}.attention.{part}_lin" for part in "qkv")),
            out=weights.linear(f"{layer}.attention.out_lin"),
            attention_norm=weights.norm(f"{layer}.sa_layer_norm"),
            inner=weights.linear(f"{layer}.ffn.lin1"),
            outer=weights.linear(f"{layer}.ffn.lin2"),
            norm=weights.norm(f"{layer}.output_layer_norm"),
        )
