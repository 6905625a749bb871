"""Attention over texts that lie end to end, without padding.

transformers lets a model's attention be replaced by name. This one takes queries, keys and values
of a whole batch as one long row; each token attends to its own text only. On a GPU it calls
`torch.nn.attention.varlen`. On other devices it calls scaled dot-product attention once per run of
texts of equal length; a batch sorted by length has few. It needs no mask and does no work for
padding. sentence-transformers' pooling reads the same form (`cu_seq_lens_q`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

# At the top: this module is imported when a model is loaded.
import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from msmarco_qdrant.encoding.backends.torch_device import to_device
from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

NAME = "msmarco_qdrant_varlen"

# Tests compare each of these with the library's padded pass; others may need a mask.
_MODEL_TYPES = frozenset({"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"})
_VARLEN_MODULES = frozenset({"Transformer", "Pooling", "Dense", "Normalize", "LayerNorm"})


class VarlenRun(NamedTuple):
    """Neighboring texts of equal length: first token, number of texts, tokens per text."""

    start: int
    texts: int
    length: int

    @property
    def tokens(self) -> slice:
        """The range of their tokens in the batch."""
        return slice(self.start, self.start + self.texts * self.length)


def has_varlen_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """True if attention runs without padding: on CPUs, and on GPUs since Ampere in 16 bits."""
    if device.type == "cuda":
        return dtype != torch.float32 and torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu"


def supports_varlen(model: SentenceTransformer) -> bool:
    """True if every module of a model computes the same without padding."""
    return (
        _has_known_layers(model)
        and {type(module).__name__ for module in model} <= _VARLEN_MODULES
        # Without padding, sentence-transformers before 6.2 pools the prompt's first token ("cls").
        and all(getattr(module, "include_prompt", True) for module in model)
    )


def supports_varlen_pairs(model: CrossEncoder) -> bool:
    """True if a cross-encoder's head reads only the first token of each pair."""
    classifier = type(getattr(model[0], "model", None)).__name__
    return (
        _has_known_layers(model)
        and [type(module).__name__ for module in model] == ["Transformer"]
        and classifier.endswith("ForSequenceClassification")
    )


def _has_known_layers(model: SentenceTransformer | CrossEncoder) -> bool:
    config = getattr(getattr(model[0], "model", None), "config", None)
    known = getattr(config, "model_type", None) in _MODEL_TYPES
    return known and not getattr(config, "is_decoder", False)


def use_varlen_pairs(model: CrossEncoder) -> None:
    """Change a cross-encoder, in place, to take pairs that lie end to end, and only those.

    Its layers return the first token of each pair, as a text of one token: the pooler and the head
    read no other.
    """
    _replace_attention(model)
    _layers(model).register_forward_hook(_keep_first_tokens, with_kwargs=True)


def _keep_first_tokens(
    _module: torch.nn.Module, _args: tuple[Any, ...], features: dict[str, Any], output: Any
) -> Any:
    first = features["cu_seq_lens_q"][:-1]
    output.last_hidden_state = output.last_hidden_state.squeeze(0)[first].unsqueeze(1)
    return output


def _layers(model: SentenceTransformer | CrossEncoder) -> Any:
    """Return the stack of layers of a known model."""
    transformer: Any = model[0]
    trunk = transformer.model.base_model
    return trunk.transformer if hasattr(trunk, "transformer") else trunk.encoder


def _replace_attention(model: SentenceTransformer | CrossEncoder) -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, varlen_attention)
    transformer: Any = model[0]
    transformer.model.set_attn_implementation(NAME)


def use_varlen_attention(model: SentenceTransformer) -> None:
    """Change a model, in place, to take texts that lie end to end, and only those."""
    _replace_attention(model)
    for index, module in enumerate(model):
        mode = getattr(module, "pooling_mode", None)
        if type(module).__name__ == "Pooling" and mode in ("mean", "cls"):
            model[index] = VarlenPooling(mode)


def compile_layers(model: SentenceTransformer) -> None:
    """Compile the layers with torch, once for any number of tokens."""
    for layer in _layers(model).layer:
        layer.compile(dynamic=True)


def position_offset(model: SentenceTransformer | CrossEncoder) -> int:
    """Return the position of a text's first token; RoBERTa starts after its padding token's id."""
    transformer: Any = model[0]
    embeddings = transformer.model.base_model.embeddings
    padding = getattr(embeddings, "padding_idx", None)
    return padding + 1 if isinstance(padding, int) else 0


def varlen_features(
    batch: Tokenized, device: torch.device, offset: int, segments: Tokenized | None = None
) -> dict[str, Any]:
    """Return the input of `varlen_attention` and of the pooling of sentence-transformers.

    Args:
        batch: The texts.
        device: The device of the model.
        offset: The position of a text's first token; see `position_offset`.
        segments: The segment of each token, for a model that reads it.
    """
    lengths = batch.lengths
    tokens = np.empty((3 if segments is None else 4, len(batch.ids)), np.int32)
    tokens[0] = batch.ids
    tokens[1] = np.arange(len(batch.ids)) - np.repeat(batch.offsets[:-1] - offset, lengths)
    tokens[2] = np.repeat(np.arange(len(batch), dtype=np.int32), lengths)
    if segments is not None:
        tokens[3] = segments.ids
    packed = to_device(torch.from_numpy(tokens), device)
    edges = to_device(torch.from_numpy(batch.offsets.astype(np.int32)), device)
    names = ("input_ids", "position_ids", "seq_idx", "token_type_ids")[: len(tokens)]
    features = {
        **{name: packed[row : row + 1] for row, name in enumerate(names)},
        **{f"cu_seq_lens_{side}": edges for side in "qk"},
        **{f"max_length_{side}": int(lengths.max()) for side in "qk"},
    }
    return features if device.type == "cuda" else {**features, "runs": group_runs(batch)}


def group_runs(batch: Tokenized) -> list[VarlenRun]:
    """Group neighboring texts of a batch into runs of equal length."""
    lengths = batch.lengths
    edges = np.flatnonzero(np.diff(lengths)) + 1
    starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(lengths)]
    return [
        VarlenRun(int(batch.offsets[start]), stop - start, int(lengths[start]))
        for start, stop in zip(starts, stops, strict=True)
    ]


class VarlenPooling(torch.nn.Module):
    """The library's pooling by mean or by the first token, without reading sizes from the device.

    Some supported versions of the library wait there for the GPU, which is then idle until the
    next batch arrives.

    Args:
        mode: "mean" or "cls".
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self._mode = mode

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, `(texts, size)`, to the transformer's output."""
        tokens: torch.Tensor = features["token_embeddings"].squeeze(0)
        first = features["cu_seq_lens_q"][:-1]
        pooled = tokens[first] if self._mode == "cls" else _pool_mean(tokens, features)
        return {**features, "sentence_embedding": pooled}


def _pool_mean(tokens: torch.Tensor, features: dict[str, Any]) -> torch.Tensor:
    """Return the means, summed in float32."""
    if (runs := features.get("runs")) is not None:
        texts = [tokens[run.tokens].view(run.texts, run.length, -1) for run in runs]
        return torch.cat([text.mean(dim=1, dtype=torch.float32) for text in texts]).to(tokens.dtype)
    edges = features["cu_seq_lens_q"]
    lengths = edges[1:] - edges[:-1]
    sums = torch.zeros(len(lengths), tokens.shape[1], device=tokens.device)
    sums.index_add_(0, features["seq_idx"].squeeze(0), tokens.float())
    means: torch.Tensor = (sums / lengths[:, None]).to(tokens.dtype)
    return means


def varlen_attention(  # the signature is that of transformers
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  # texts are separated by cu_seq_lens_q
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    runs: list[VarlenRun] | None = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of `(1, heads, tokens, size)` within each text: `(1, tokens, heads, size)`."""
    q, k, v = (states.transpose(1, 2).squeeze(0) for states in (query, key, value))
    if runs is not None:
        return _attend_by_runs(q, k, v, runs, scaling).unsqueeze(0), None
    from torch.nn.attention.varlen import varlen_attn

    edges, longest = cu_seq_lens_q, max_length_q
    attended = varlen_attn(q, k, v, edges, edges, longest, longest, scale=scaling)
    return cast("torch.Tensor", attended).unsqueeze(0), None


def _attend_by_runs(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, runs: list[VarlenRun], scaling: float | None
) -> torch.Tensor:
    """Attend within each run; inputs and output are `(tokens, heads, size)`."""
    outputs = []
    for run in runs:
        shape = (run.texts, run.length, *q.shape[1:])
        texts = [states[run.tokens].view(shape).transpose(1, 2) for states in (q, k, v)]
        attended = scaled_dot_product_attention(texts[0], texts[1], texts[2], scale=scaling)
        outputs.append(attended.transpose(1, 2).reshape(-1, *q.shape[1:]))
    return torch.cat(outputs)
