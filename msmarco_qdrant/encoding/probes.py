"""Texts on which forward passes of a model are compared."""

from __future__ import annotations

from msmarco_qdrant.encoding.compact import CompactModel
from msmarco_qdrant.encoding.tokens import Tokenized

_LENGTHS = (12, 3, 9, 64, 1)


def random_texts(compact: CompactModel, longest: int | None) -> Tokenized:
    """Return texts of random tokens, short ones and one as long as the model takes.

    Args:
        compact: The model.
        longest: Tokens of the longest one; None for the model's positions, which it may not exceed.
    """
    import numpy as np

    positions = len(compact.positions) - (compact.pad_id is not None)
    longest = min(longest or positions, positions)
    lengths = [min(length, longest) for length in (*_LENGTHS, longest)]
    words = len(compact.words)
    ids = np.random.default_rng(0).integers(words // 2, words, sum(lengths), np.int32)
    if compact.pad_id is not None:  # a text may contain the token, which shifts positions
        ids[1 : lengths[0] : 4] = compact.pad_id
    return Tokenized.from_lengths(ids, lengths)
