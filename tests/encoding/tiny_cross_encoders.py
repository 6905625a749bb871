"""Tiny cross-encoders with random weights, on disk as the published ones are.

Each has the architecture of a published model with two layers of 32 units, a classification head
and a real fast tokenizer; parameters are drawn as for the tiny bi-encoders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tests.encoding.tiny_models import (
    Architecture,
    _byte_level,
    _transformer,
    _word_piece,
    randomize,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Edit: TypeAlias = "Callable[[PreTrainedModel], None]"

# As their configurations on the hub say it: since version 4 of the library, and before.
_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "identity": {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
    "legacy": {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
}
# Only these models are told which tokens are the query's.
_SEGMENTED = ("bert", "electra")


@dataclass(frozen=True)
class PairRecipe:
    """What a tiny cross-encoder is made of.

    Attributes:
        architecture: The transformer's shape and with it the tokenizer's kind.
        labels: Scores that it gives a pair.
        activation: What its configuration says of the activation: nothing (and the library takes
            the sigmoid), the identity, or the identity under its older name.
        max_length: Tokens after which a pair is cut.
        seed: Seed of all parameters.
    """

    architecture: Architecture = "bert"
    labels: int = 1
    activation: Literal["none", "identity", "legacy"] = "identity"
    max_length: int = 48
    seed: int = 0


def save_tiny_pairs(directory: Path, recipe: PairRecipe, edit: Edit | None = None) -> Path:
    """Make a cross-encoder and save it; `edit` may change its weights before."""
    from transformers import AutoModelForSequenceClassification

    tokenizer = _tokenizer(recipe)
    config = _transformer(recipe.architecture, len(tokenizer)).config
    config.num_labels = recipe.labels
    config.update(_ACTIVATIONS[recipe.activation])
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    randomize(model, recipe.seed)
    if edit is not None:
        edit(model)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _tokenizer(recipe: PairRecipe) -> PreTrainedTokenizerBase:
    """A tiny bi-encoder's, which says its length and what its model is told."""
    from transformers import PreTrainedTokenizerFast

    plain: Any = _byte_level() if recipe.architecture == "roberta" else _word_piece()
    segments = ["token_type_ids"] if recipe.architecture in _SEGMENTED else []
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=plain.backend_tokenizer,
        model_input_names=["input_ids", *segments, "attention_mask"],
        model_max_length=recipe.max_length,
        **{name: str(token) for name, token in plain.special_tokens_map.items()},
    )
