"""Fast tokenizers of pairs that give the same token ids as sentence-transformers.

As in `tokenizers`, `tokenizers` is called directly if its result equals the library's, and the
library otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from msmarco_qdrant.encoding.tokenizers import copy_tokenizer
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import ModelNotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder
    from tokenizers import Tokenizer

Pair: TypeAlias = tuple[str, str]

# Longer than most models take, alone or together. `tokenizers` also keeps the truncated parts, in
# every combination of the two texts, so two very long texts would take seconds.
_LONG = "snow " * 2500
_HALF = "cold " * 300

# Case, accents, scripts, white space, special tokens, empty texts, and texts to truncate.
_PROBES = (
    ("How Big is LONDON?", "  naïve café\u2028résumé\u00a0 "),
    ("東京 Привет \U0001f9ea \ufffd", "[CLS] <s> [MASK] </s> [SEP]"),
    ("", "a city"),
    ("a city", ""),
    ("", ""),
    ("how big", _LONG),
    (_LONG, "london"),
    (_HALF, _HALF),
)

# All inputs that batches can contain.
_KNOWN = frozenset({"input_ids", "token_type_ids", "attention_mask", "modality", "prompt_length"})


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedPairs:
    """Pairs as token ids, special tokens included, without padding.

    Attributes:
        tokens: The ids of each pair.
        segments: For each token, 0 if it is of the query, 1 if it is of the passage; None for a
            model without this input.
    """

    tokens: Tokenized
    segments: Tokenized | None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, positions: NDArray[np.int64]) -> TokenizedPairs:
        """Select pairs, in the order of `positions`, int64 `(m,)`."""
        segments = None if self.segments is None else self.segments.take(positions)
        return TokenizedPairs(self.tokens.take(positions), segments)


class LibraryPairTokenizer:
    """The library's own preprocessing. Thread-safe: one call at a time."""

    def __init__(self, model: CrossEncoder) -> None:
        self._model = model
        self._prompt = _default_prompt(model)
        self._lock = threading.Lock()

    def __call__(self, pairs: Sequence[Pair]) -> TokenizedPairs:
        """Return token ids of each pair, truncated to the model's length, the longer text first."""
        with self._lock:
            features: dict[str, Any] = self._model.preprocess(
                list(pairs),
                prompt=self._prompt,
                processing_kwargs={"common": {"return_tensors": None}, "text": {"padding": False}},
            )
        _check_features(features)
        return _from_rows(features["input_ids"], features.get("token_type_ids"))


class FastPairTokenizer:
    """The tokenizer of `tokenizers` inside a transformers one. Thread-safe.

    Args:
        tokenizer: A private copy, with truncation and without padding.
        segmented: True if the model reads which tokens are the query's.
    """

    def __init__(self, tokenizer: Tokenizer, *, segmented: bool) -> None:
        self._tokenizer = tokenizer
        self._segmented = segmented

    def __call__(self, pairs: Sequence[Pair]) -> TokenizedPairs:
        """Return token ids of each pair, truncated to the model's length, the longer text first."""
        found = self._tokenizer.encode_batch_fast(list(pairs))
        segments = [pair.type_ids for pair in found] if self._segmented else None
        return _from_rows([pair.ids for pair in found], segments)


def build_pair_tokenizer(model: CrossEncoder) -> FastPairTokenizer | LibraryPairTokenizer:
    """Return the fastest tokenizer of pairs that gives the same ids as the library.

    Raises:
        ModelNotFoundError: If the model needs other inputs than tokens and their segments.
    """
    library = LibraryPairTokenizer(model)
    expected = library(_PROBES)
    copy = copy_tokenizer(model)
    if copy is None or _default_prompt(model):
        return library
    fast = FastPairTokenizer(copy, segmented=expected.segments is not None)
    return fast if _equal(fast(_PROBES), expected) else library


def _default_prompt(model: CrossEncoder) -> str | None:
    """Return the library's default prompt of each pair."""
    return model.prompts.get(model.default_prompt_name or "") or None


def _check_features(features: dict[str, Any]) -> None:
    other = sorted(features.keys() - _KNOWN)
    if other or features.get("modality", "text") != "text":
        found = ", ".join(other) or str(features["modality"])
        raise ModelNotFoundError(
            f"the model needs '{found}' in addition to token ids, which is not supported: use a "
            "cross-encoder of the BERT, DistilBERT, RoBERTa or Electra kind"
        )


def _from_rows(ids: list[list[int]], segments: list[list[int]] | None) -> TokenizedPairs:
    return TokenizedPairs(
        Tokenized.from_rows(ids), None if segments is None else Tokenized.from_rows(segments)
    )


def _equal(left: TokenizedPairs, right: TokenizedPairs) -> bool:
    if left.segments is None or right.segments is None:
        return left.segments is right.segments and left.tokens.equals(right.tokens)
    return left.segments.equals(right.segments) and left.tokens.equals(right.tokens)
