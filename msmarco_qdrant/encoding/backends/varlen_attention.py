"""Attention over texts that lie end to end, without padding.

transformers lets a model's attention be replaced by name. Ours gets queries, keys and values of a
whole batch as one long row and lets each token see its own text only: on a GPU by
`torch.nn.attention.varlen`, elsewhere by one call of scaled dot-product attention for each run of
texts of equal length, of which a batch sorted by length has few. No mask is made or read, and no
work is done for padding. sentence-transformers' pooling reads the same form (`cu_seq_lens_q`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

# At the top: nothing imports this module before a model is loaded.
import torch
from torch.nn.functional import scaled_dot_product_attention

from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

NAME = "msmarco_qdrant_flat"

# Of these, tests compare every one with the library's padded pass; others may want a mask.
_MODEL_TYPES = frozenset({"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"})
_FLAT_MODULES = frozenset({"Transformer", "Pooling", "Dense", "Normalize", "LayerNorm"})


class Run(NamedTuple):
    """Neighboring texts of equal length: where their tokens begin, how many, how long."""

    start: int
    texts: int
    length: int

    @property
    def tokens(self) -> slice:
        """Where they stand."""
        return slice(self.start, self.start + self.texts * self.length)


def can_flatten(model: SentenceTransformer) -> bool:
    """Whether every module of a model computes the same without padding."""
    config = getattr(getattr(model[0], "model", None), "config", None)
    return (
        getattr(config, "model_type", None) in _MODEL_TYPES
        and not getattr(config, "is_decoder", False)
        and {type(module).__name__ for module in model} <= _FLAT_MODULES
    )


def flatten(model: SentenceTransformer) -> None:
    """Let a model take texts that lie end to end, and nothing else, in place."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, flat_attention)
    transformer: Any = model[0]
    transformer.model.set_attn_implementation(NAME)
    for index, module in enumerate(model):
        pooling: Any = module
        if type(module).__name__ == "Pooling" and pooling.include_prompt:
            mode = pooling.pooling_mode
            if mode in ("mean", "cls"):  # as a name, or as a list of one
                model[index] = FlatPooling(mode)


def compile_layers(model: SentenceTransformer) -> None:
    """Let torch compile what each layer repeats: once for all, for any number of tokens."""
    transformer: Any = model[0]
    parts = transformer.model
    layers = parts.transformer if hasattr(parts, "transformer") else parts.encoder
    for layer in layers.layer:
        layer.compile(dynamic=True)


def position_offset(model: SentenceTransformer) -> int:
    """The position of a text's first token: RoBERTa counts from behind its padding token."""
    transformer: Any = model[0]
    embeddings = transformer.model.embeddings
    padding = getattr(embeddings, "padding_idx", None)
    return padding + 1 if isinstance(padding, int) else 0


def runs_of(batch: Tokenized) -> list[Run]:
    """A batch's texts, gathered into runs of equal length."""
    import numpy as np

    lengths = batch.lengths
    edges = np.flatnonzero(np.diff(lengths)) + 1
    starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(lengths)]
    return [
        Run(int(batch.offsets[start]), stop - start, int(lengths[start]))
        for start, stop in zip(starts, stops, strict=True)
    ]


class FlatPooling(torch.nn.Module):
    """The library's pooling by mean or by the first token, without asking the device for sizes.

    Of the versions that we accept, some wait there for the GPU, which then idles until the next
    batch arrives.

    Args:
        mode: "mean" or "cls".
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self._mode = mode

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, `(texts, size)`, to what the transformer gave."""
        tokens: torch.Tensor = features["token_embeddings"].squeeze(0)
        pooled = _first(tokens, features) if self._mode == "cls" else _mean(tokens, features)
        return {**features, "sentence_embedding": pooled}


def _first(tokens: torch.Tensor, features: dict[str, Any]) -> torch.Tensor:
    edges: torch.Tensor = features["cu_seq_lens_q"]
    return tokens[edges[:-1]]


def _mean(tokens: torch.Tensor, features: dict[str, Any]) -> torch.Tensor:
    """Summed in float32."""
    if (runs := features.get("runs")) is not None:
        texts = [tokens[run.tokens].view(run.texts, run.length, -1) for run in runs]
        return torch.cat([text.mean(dim=1, dtype=torch.float32) for text in texts]).to(tokens.dtype)
    edges = features["cu_seq_lens_q"]
    lengths = edges[1:] - edges[:-1]
    sums = torch.zeros(len(lengths), tokens.shape[1], device=tokens.device)
    sums.index_add_(0, features["seq_idx"].squeeze(0), tokens.float())
    means: torch.Tensor = (sums / lengths[:, None]).to(tokens.dtype)
    return means


def flat_attention(  # the signature is that of transformers
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  # each text sees itself alone
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    runs: list[Run] | None = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of `(1, heads, tokens, size)` within each text: `(1, tokens, heads, size)`."""
    q, k, v = (states.transpose(1, 2).squeeze(0) for states in (query, key, value))
    if runs is not None:
        return _by_runs(q, k, v, runs, scaling).unsqueeze(0), None
    from torch.nn.attention.varlen import varlen_attn

    edges, longest = cu_seq_lens_q, max_length_q
    attended = varlen_attn(q, k, v, edges, edges, longest, longest, scale=scaling)
    return cast("torch.Tensor", attended).unsqueeze(0), None


def _by_runs(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, runs: list[Run], scaling: float | None
) -> torch.Tensor:
    """`(tokens, heads, size)` each, in and out."""
    outputs = []
    for run in runs:
        shape = (run.texts, run.length, *q.shape[1:])
        texts = [states[run.tokens].view(shape).transpose(1, 2) for states in (q, k, v)]
        attended = scaled_dot_product_attention(texts[0], texts[1], texts[2], scale=scaling)
        outputs.append(attended.transpose(1, 2).reshape(-1, *q.shape[1:]))
    return torch.cat(outputs)
