"""Stand-ins for models of the family: their shapes and names, few layers, random weights.

No model hub is asked. A stand-in is loaded as the real one is: from a directory of its name, or by
its name alone from the hub's cache.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.encoding.tiny_models import SPECIAL, randomize, word_piece

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

V2 = "msmarco-distilbert-base-v2"
V3 = "msmarco-distilbert-base-v3"
SMALL = "msmarco-MiniLM-L6-v3"
DOT = "msmarco-distilbert-base-tas-b"


@dataclass(frozen=True)
class Shape:
    """What tells the models of the family apart, but for their weights.

    Attributes:
        architecture: Of the transformer.
        dimension: Of its vectors.
        heads: Attention heads.
        pooling: How a text's vector is made of its tokens'.
        seed: Of the weights.
    """

    architecture: Literal["distilbert", "bert"]
    dimension: int
    heads: int
    pooling: Literal["mean", "cls"]
    seed: int


SHAPES: Mapping[str, Shape] = {
    V2: Shape("distilbert", 768, 12, "mean", 22),
    V3: Shape("distilbert", 768, 12, "mean", 3),
    SMALL: Shape("bert", 384, 12, "mean", 26),
    DOT: Shape("distilbert", 768, 12, "cls", 8),
}


def save_stand_in(folder: Path, name: str, texts: Sequence[str]) -> Path:
    """Make the stand-in of a model that knows the words of some texts; its directory."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    shape, plain = SHAPES[name], folder / f"{name}-plain"
    tokenizer = _tokenizer(texts)
    transformer = _transformer(shape, len(tokenizer))
    randomize(transformer, shape.seed, _spread)
    transformer.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    model = SentenceTransformer(
        modules=[
            Transformer(str(plain), max_seq_length=128),
            Pooling(shape.dimension, shape.pooling),
        ],
        similarity_fn_name="dot" if name == DOT else "cosine",
        device="cpu",
    )
    model.save_pretrained(str(folder / name), create_model_card=False)
    shutil.rmtree(plain)
    return folder / name


def environment_of_cache(home: Path) -> Mapping[str, str]:
    """An environment whose programs find models in this cache, and nowhere else."""
    others = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in others}
    return {**kept, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def _transformer(shape: Shape, vocabulary: int) -> PreTrainedModel:
    import transformers

    config: transformers.PretrainedConfig
    if shape.architecture == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=vocabulary,
            dim=shape.dimension,
            hidden_dim=shape.dimension,
            n_heads=shape.heads,
            n_layers=1,
        )
    else:
        config = transformers.BertConfig(
            vocab_size=vocabulary,
            hidden_size=shape.dimension,
            intermediate_size=shape.dimension,
            num_attention_heads=shape.heads,
            num_hidden_layers=1,
        )
    model: PreTrainedModel = transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    return model


def _spread(name: str) -> float:
    """Words differ so much that texts differ by their words."""
    return 1.0 if "word_embeddings" in name else 0.02


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Lower-casing WordPiece over the words of some texts, and single characters."""
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})
    parts = [f"##{letter}" for letter in letters]
    tokenizer = word_piece([*SPECIAL.values(), *letters, *parts, *words], lowercase=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)  # type: ignore[no-untyped-call]
