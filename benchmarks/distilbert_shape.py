"""A model of DistilBERT-base's shape with random weights, to measure speed.

Six layers of 768 with 12 heads, 3,072 in between and a vocabulary of 30,522, mean pooling and at
most 350 tokens: the shape of msmarco-distilbert-base-v3. Tokens come from the WordPiece vocabulary
of all-MiniLM-L6-v2, which is that of BERT and DistilBERT (uncased).
"""

from __future__ import annotations

from pathlib import Path

MAX_SEQ_LENGTH = 350
_SEED = 0


def save_distilbert(directory: Path, tokenizer: str) -> Path:
    """Save such a model.

    Args:
        directory: Where to.
        tokenizer: The directory of a model whose tokenizer it gets.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    plain = directory.with_name(f"{directory.name}-plain")
    words = AutoTokenizer.from_pretrained(tokenizer)
    words.model_input_names = ["input_ids", "attention_mask"]  # DistilBERT has no token types
    words.save_pretrained(plain)
    torch.manual_seed(_SEED)
    config = DistilBertConfig()  # its defaults are distilbert-base-uncased
    DistilBertModel(config).save_pretrained(plain)
    modules = [Transformer(str(plain), max_seq_length=MAX_SEQ_LENGTH), Pooling(config.dim, "mean")]
    model = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="cosine")
    model.save_pretrained(str(directory), create_model_card=False)
    return directory
