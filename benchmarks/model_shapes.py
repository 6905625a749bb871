"""Models of published shapes with random weights, to measure speed.

DistilBERT-base: six layers of 768 with 12 heads, 3,072 in between and a vocabulary of 30,522, at
most 350 tokens: the shape of msmarco-distilbert-base-v3. MPNet-base: twelve such layers, with
biases of attention by distance, at most 384 tokens: the shape of all-mpnet-base-v2. Both have mean
pooling. Tokens come from the WordPiece vocabulary of all-MiniLM-L6-v2, which is that of BERT and
DistilBERT (uncased).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SEED = 0


def save_distilbert(directory: Path, tokenizer: str) -> Path:
    """Save a model of DistilBERT-base's shape.

    Args:
        directory: Where to.
        tokenizer: The directory of a model whose tokenizer it gets.
    """
    import torch
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(_SEED)
    # The defaults are distilbert-base-uncased.
    return _save(directory, tokenizer, DistilBertModel(DistilBertConfig()), 350)


def save_mpnet(directory: Path, tokenizer: str) -> Path:
    """Save a model of MPNet-base's shape; see `save_distilbert`."""
    import torch
    from transformers import MPNetConfig, MPNetModel

    torch.manual_seed(_SEED)
    return _save(directory, tokenizer, MPNetModel(MPNetConfig()), 384)


SHAPES = {"distilbert": save_distilbert, "mpnet": save_mpnet}


def _save(directory: Path, tokenizer: str, transformer: PreTrainedModel, length: int) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer

    plain = directory.with_name(f"{directory.name}-plain")
    words: Any = AutoTokenizer.from_pretrained(tokenizer)
    words.model_input_names = ["input_ids", "attention_mask"]  # neither has token types
    words.save_pretrained(plain)
    transformer.save_pretrained(plain)
    modules = [
        Transformer(str(plain), max_seq_length=length),
        Pooling(transformer.config.hidden_size, "mean"),
    ]
    model = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="cosine")
    model.save_pretrained(str(directory), create_model_card=False)
    return directory
