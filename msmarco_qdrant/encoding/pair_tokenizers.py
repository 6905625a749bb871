"""A cross-encoder's own tokenizer, which takes a query and a passage together.

As in `tokenizing`, what `tokenizers` gives when it is called directly is taken where it is proven
to be what sentence-transformers would hand the model, and the library's own way elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import ModelNotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder
    from tokenizers import Tokenizer

Pair: TypeAlias = tuple[str, str]

# A tokenizer that was never told a length says a number beyond any model's.
_NO_LENGTH = 1_000_000

# Beyond most models' lengths, alone or together. What `tokenizers` cuts off it keeps too, in every
# combination of the two texts' ends, so two texts that are both far too long take seconds.
_LONG = "snow " * 2500
_HALF = "cold " * 300

# Case, accents, scripts, white space, special tokens, nothing at all, and what has to be cut.
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

# All that a model may want of a pair, and that batches are made of here.
_KNOWN = frozenset({"input_ids", "token_type_ids", "attention_mask", "modality", "prompt_length"})


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedPairs:
    """Pairs as token ids, special tokens included, without padding.

    Attributes:
        tokens: The ids of each pair.
        segments: Whether each of those tokens is of the query (0) or of the passage (1); None for
            a model that is not told.
    """

    tokens: Tokenized
    segments: Tokenized | None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, positions: NDArray[np.int64]) -> TokenizedPairs:
        """Some of the pairs, in the order of `positions`, int64 `(m,)`."""
        segments = None if self.segments is None else self.segments.take(positions)
        return TokenizedPairs(self.tokens.take(positions), segments)


class LibraryPairs:
    """The library's own preprocessing. Thread-safe: one call at a time."""

    def __init__(self, model: CrossEncoder) -> None:
        self._model = model
        self._prompt = _prompt_of(model)
        self._lock = threading.Lock()

    def __call__(self, pairs: Sequence[Pair]) -> TokenizedPairs:
        """Token ids of each pair, cut to the model's length from the longer of the two."""
        with self._lock:
            features: dict[str, Any] = self._model.preprocess(
                list(pairs),
                prompt=self._prompt,
                processing_kwargs={"common": {"return_tensors": None}, "text": {"padding": False}},
            )
        _check_features(features)
        segments = features.get("token_type_ids")
        return TokenizedPairs(
            _joined(features["input_ids"]), None if segments is None else _joined(segments)
        )


class FastPairs:
    """The tokenizer of `tokenizers` inside a transformers one. Thread-safe.

    Args:
        tokenizer: A copy that nobody else changes, truncation set and padding off.
        segmented: Whether the model is told which tokens are the query's.
    """

    def __init__(self, tokenizer: Tokenizer, *, segmented: bool) -> None:
        self._tokenizer = tokenizer
        self._segmented = segmented

    def __call__(self, pairs: Sequence[Pair]) -> TokenizedPairs:
        """Token ids of each pair, cut to the model's length from the longer of the two."""
        found = self._tokenizer.encode_batch_fast(list(pairs))
        segments = _joined([one.type_ids for one in found]) if self._segmented else None
        return TokenizedPairs(_joined([one.ids for one in found]), segments)


def pair_tokenizer_of(model: CrossEncoder) -> FastPairs | LibraryPairs:
    """What tokenizes pairs for a model as the library does, and is fastest.

    Raises:
        ModelNotFoundError: If the model wants more of a pair than its tokens and their segments.
    """
    library = LibraryPairs(model)
    expected = library(_PROBES)
    fast = _fast(model, segmented=expected.segments is not None)
    if fast is not None and _equal(fast(_PROBES), expected):
        return fast
    return library


def _fast(model: CrossEncoder, *, segmented: bool) -> FastPairs | None:
    """The way around the library, if the model's tokenizer has one and no prompt is wanted."""
    backend: Tokenizer | None = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast") or _prompt_of(model):
        return None
    copy = type(backend).from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    length, side = model.max_seq_length, getattr(model.tokenizer, "truncation_side", "right")
    if length is not None and length < _NO_LENGTH:
        copy.enable_truncation(length, strategy="longest_first", direction=side)
    return FastPairs(copy, segmented=segmented)


def _prompt_of(model: CrossEncoder) -> str | None:
    """What the library puts in front of each pair when it is told nothing."""
    return model.prompts.get(model.default_prompt_name or "") or None


def _check_features(features: dict[str, Any]) -> None:
    other = sorted(features.keys() - _KNOWN)
    if other or features.get("modality", "text") != "text":
        found = ", ".join(other) or str(features["modality"])
        raise ModelNotFoundError(
            f"the model wants '{found}' of each pair beside its token ids: that is not supported; "
            "take a cross-encoder of the BERT, DistilBERT, RoBERTa or Electra kind"
        )


def _joined(rows: list[list[int]]) -> Tokenized:
    import numpy as np

    lengths = [len(row) for row in rows]
    ids = np.fromiter(chain.from_iterable(rows), np.int32, sum(lengths))
    return Tokenized.from_lengths(ids, lengths)


def _equal(one: TokenizedPairs, other: TokenizedPairs) -> bool:
    import numpy as np

    parts = [(one.tokens, other.tokens)]
    if one.segments is not None and other.segments is not None:
        parts.append((one.segments, other.segments))
    return all(
        np.array_equal(mine.offsets, theirs.offsets) and np.array_equal(mine.ids, theirs.ids)
        for mine, theirs in parts
    )
