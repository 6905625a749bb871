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
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

V2 = "msmarco-distilbert-base-v2"
V3 = "msmarco-distilbert-base-v3"
SMALL = "msmarco-MiniLM-L6-v3"
DOT = "msmarco-distilbert-base-tas-b"

_SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}


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
    _randomize(transformer, shape.seed)
    transformer.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    model = SentenceTransformer(
        modules=[
            Transformer(str(plain), max_seq_length=128),
            Pooling(shape.dimension, shape.pooling),
        ],
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


def _randomize(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter; the words' so far apart that texts are told apart by their words."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            spread = 1.0 if "word_embeddings" in name else 0.02
            mean = 1.0 if name.lower().endswith("norm.weight") else 0.0
            parameter.normal_(mean, spread, generator=generator)


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Lower-casing WordPiece over the words of some texts, and single characters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})
    tokens = [*_SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    given: dict[str, Any] = {"tokenizer_object": tokenizer, **_SPECIAL}
    return PreTrainedTokenizerFast(**given)  # type: ignore[no-untyped-call]
