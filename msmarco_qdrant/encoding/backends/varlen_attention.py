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

from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

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


def supports_varlen(model: SentenceTransformer) -> bool:
    """True if every module of a model computes the same without padding."""
    config = getattr(getattr(model[0], "model", None), "config", None)
    return (
        getattr(config, "model_type", None) in _MODEL_TYPES
        and not getattr(config, "is_decoder", False)
        and {type(module).__name__ for module in model} <= _VARLEN_MODULES
        # Without padding, sentence-transformers before 6.2 pools the prompt's first token ("cls").
        and all(getattr(module, "include_prompt", True) for module in model)
    )


def use_varlen_attention(model: SentenceTransformer) -> None:
    """Change a model, in place, to take texts that lie end to end, and only those."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, varlen_attention)
    transformer: Any = model[0]
    transformer.model.set_attn_implementation(NAME)
    for index, module in enumerate(model):
        mode = getattr(module, "pooling_mode", None)
        if type(module).__name__ == "Pooling" and mode in ("mean", "cls"):
            model[index] = VarlenPooling(mode)


def compile_layers(model: SentenceTransformer) -> None:
    """Compile the layers with torch, once for any number of tokens."""
    transformer: Any = model[0]
    parts = transformer.model
    layers = parts.transformer if hasattr(parts, "transformer") else parts.encoder
    for layer in layers.layer:
        layer.compile(dynamic=True)


def position_offset(model: SentenceTransformer) -> int:
    """Return the position of a text's first token; RoBERTa starts after its padding token's id."""
    transformer: Any = model[0]
    embeddings = transformer.model.embeddings
    padding = getattr(embeddings, "padding_idx", None)
    return padding + 1 if isinstance(padding, int) else 0


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
