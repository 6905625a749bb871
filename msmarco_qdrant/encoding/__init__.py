"""Texts to vectors: bi-encoders for the dense ones, BM25 for the sparse ones; pairs to scores."""

from __future__ import annotations

from msmarco_qdrant.encoding.bm25 import Bm25Encoder
from msmarco_qdrant.encoding.loading import load_encoder, load_reranker
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.encoding.protocols import Encoder, Reranker, Tokenizer
from msmarco_qdrant.encoding.tokens import Tokenized

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
