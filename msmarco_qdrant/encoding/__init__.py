"""Texts to vectors: bi-encoders for the dense ones, BM25 for the sparse ones."""

from __future__ import annotations

from msmarco_qdrant.encoding.bm25 import Bm25Encoder
from msmarco_qdrant.encoding.loading import load_encoder
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.encoding.protocol import Encoder, Tokenizer
from msmarco_qdrant.encoding.tokenised import Tokenised

__all__ = ["Bm25Encoder", "Encoder", "EncoderOptions", "Tokenised", "Tokenizer", "load_encoder"]
