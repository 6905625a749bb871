"""Tiny models with random weights, on disk in the layout of sentence-transformers.

Each has the architecture of a published model (DistilBERT, RoBERTa, BERT, Electra, MPNet) with two
layers of 32 units and a real fast tokenizer. The same recipe gives the same bytes: parameters are
drawn anew, in the order of their names, from a seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Architecture: TypeAlias = Literal["distilbert", "roberta", "bert", "electra", "mpnet"]
Edit: TypeAlias = "Callable[[SentenceTransformer], None]"

ARCHITECTURES: tuple[Architecture, ...] = ("distilbert", "roberta", "bert", "electra")
HIDDEN = 32
MAX_POSITIONS = 96

# "poison" is for models that cannot bear one word.
_LINES = """
london paris berlin river bridge city tower is the a in of and how big what does modem do symptoms
dehydration libel slander budget plan money ship iceberg cold night north south poison kettle boils
water degrees mountain rain snow harbor lighthouse train station
"""
WORDS = _LINES.split()
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
_BPE_SPECIAL = {
    f"{name}_token": text
    for text, names in (
        ("<s>", ("bos", "cls")),
        ("<pad>", ("pad",)),
        ("</s>", ("eos", "sep")),
        ("<unk>", ("unk",)),
        ("<mask>", ("mask",)),
    )
    for name in names
}


@dataclass(frozen=True)
class Recipe:
    """What a tiny model is made of.

    Attributes:
        architecture: The transformer's shape and with it the tokenizer's kind.
        pooling: "mean", or "cls" as msmarco-distilbert-base-tas-b has it.
        normalize: Whether a Normalize module ends it, as in the -cos-v5 models.
        dense: Whether a Dense module follows the pooling, as in the -dot-prod-v3 model.
        layer_norm: Whether a LayerNorm follows that, as in roberta-base-ance-firstp.
        similarity: What the configuration says it is compared by, None to be silent.
        prompts: Prompts of the configuration.
        max_seq_length: Tokens after which a text is cut.
        seed: Seed of all parameters.
    """

    architecture: Architecture = "distilbert"
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = False
    dense: bool = False
    layer_norm: bool = False
    similarity: Literal["cosine", "dot"] | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    max_seq_length: int = 48
    seed: int = 0


def save_tiny(directory: Path, recipe: Recipe, edit: Edit | None = None) -> Path:
    """Make a model and save it; `edit` may change its modules before."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
    from torch import nn

    base = save_plain(directory.with_name(f"{directory.name}-plain"), recipe)
    modules: list[nn.Module] = [
        Transformer(str(base), max_seq_length=recipe.max_seq_length),
        Pooling(HIDDEN, recipe.pooling),
    ]
    if recipe.dense:
        modules.append(Dense(HIDDEN, HIDDEN, bias=True, activation_function=nn.Identity()))
    if recipe.layer_norm:
        modules.append(LayerNorm(HIDDEN))
    if recipe.normalize:
        modules.append(Normalize())
    for module in modules[1:]:
        randomize(module, recipe.seed)
    model = SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=dict(recipe.prompts),
        similarity_fn_name=recipe.similarity,
    )
    if edit is not None:
        edit(model)
    model.save_pretrained(str(directory), create_model_card=False)
    return directory


def save_plain(directory: Path, recipe: Recipe) -> Path:
    """Save the transformer and its tokenizer alone, without modules.json."""
    tokenizer = _byte_level() if recipe.architecture == "roberta" else _word_piece()
    model = _transformer(recipe.architecture, len(tokenizer))
    randomize(model, recipe.seed)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def texts_of_lengths(words: Sequence[int]) -> list[str]:
    """Texts of so many words each, no two alike."""
    return [
        " ".join(
            WORDS[(7 * row + 3 * place + place * place) % len(WORDS)] for place in range(count)
        )
        for row, count in enumerate(words)
    ]


def _spread(name: str) -> float:
    if "word_embeddings" in name:
        return 1.0
    if "norm" in name or "embeddings" in name or name.endswith("bias"):
        return 0.1
    return 0.2


def randomize(module: torch.nn.Module, seed: int, spread: Callable[[str], float] = _spread) -> None:
    """Draw every parameter, so spread that texts of different words get different vectors."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            mean = 1.0 if name.lower().endswith("norm.weight") else 0.0
            parameter.normal_(mean, spread(name.lower()), generator=generator)


def _transformer(architecture: Architecture, vocabulary: int) -> PreTrainedModel:
    import transformers

    shape: dict[str, Any] = {"vocab_size": vocabulary, "max_position_embeddings": MAX_POSITIONS}
    usual: dict[str, Any] = shape | {
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    config: PretrainedConfig
    if architecture == "distilbert":
        config = transformers.DistilBertConfig(
            **shape, dim=HIDDEN, n_layers=2, n_heads=4, hidden_dim=64
        )
    elif architecture == "roberta":
        special: dict[str, Any] = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        config = transformers.RobertaConfig(**usual, **special, type_vocab_size=1)
    elif architecture == "bert":
        config = transformers.BertConfig(**usual)
    elif architecture == "mpnet":
        config = transformers.MPNetConfig(**usual)
    else:
        config = transformers.ElectraConfig(**usual, embedding_size=16)
    model: PreTrainedModel = transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    return model


def word_piece(tokens: Iterable[str], **normalizer: Any) -> Tokenizer:
    """BERT's tokenizer of `tokenizers` over these tokens, special ones among them."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return tokenizer


def _word_piece() -> PreTrainedTokenizerBase:
    """Lower-casing WordPiece over whole words and single characters."""
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    parts = [f"##{letter}" for letter in letters if letter.isalnum()]
    tokenizer = word_piece([*SPECIAL.values(), *letters, *parts, *WORDS], lowercase=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)  # type: ignore[no-untyped-call]


def _byte_level() -> PreTrainedTokenizerBase:
    """Byte-level BPE, trained on the words above."""
    from tokenizers import ByteLevelBPETokenizer, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        [" ".join(WORDS)] * 3,
        vocab_size=320,
        show_progress=False,
        special_tokens=list(dict.fromkeys(_BPE_SPECIAL.values())),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, **_BPE_SPECIAL)  # type: ignore[no-untyped-call]
