"""Texts to vectors: bi-encoders for the dense ones, BM25 for the sparse ones; pairs to scores.

Each name is imported on first use: the command line's `--help` needs the catalog alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from msmarco_qdrant.encoding.bm25 import Bm25Encoder
    from msmarco_qdrant.encoding.loading import load_encoder, load_reranker
    from msmarco_qdrant.encoding.options import EncoderOptions
    from msmarco_qdrant.encoding.protocols import Encoder, Reranker, Tokenizer
    from msmarco_qdrant.encoding.tokens import Tokenized

_MODULES = {
    "bm25": "Bm25Encoder",
    "loading": "load_encoder load_reranker",
    "options": "EncoderOptions",
    "protocols": "Encoder Reranker Tokenizer",
    "tokens": "Tokenized",
}

__all__ = [
    "Bm25Encoder",
    "Encoder",
    "EncoderOptions",
    "Reranker",
    "Tokenized",
    "Tokenizer",
    "load_encoder",
    "load_reranker",
]


__getattr__ = lazy_attributes(__name__, _MODULES)
