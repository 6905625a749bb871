"""BM25 weights as sparse vectors.

Tokens, stop words, stemming and hashing are Qdrant's own (`qdrant_edge.Bm25`, the same code as
the server's model `qdrant/bm25`), so one encoder serves both engines. The engine multiplies by the
IDF of its collection; a passage's weight for a token is
``tf * (k + 1) / (tf + k * (1 - b + b * length / avg_len))``
(Robertson and Zaragoza, 2009, "The Probabilistic Relevance Framework: BM25 and Beyond").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.collection_types import Bm25Settings, SparseVector
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from qdrant_edge import Bm25

# With b=0 a weight is tf * (k + 1) / (tf + k), which tends to tf as k grows: the sum over the
# tokens of a passage is then its length. At 1e6 the error is under 1e-3 tokens for tf < 30.
_COUNTING_K = 1e6

# Beyond these, rounded weights do not determine a passage's length.
_MIN_K, _MAX_B, _MIN_REST, _MAX_SHARE = 0.1, 0.9, 0.001, 0.9999


class Bm25Encoder:
    """Passages and queries to BM25 sparse vectors.

    Args:
        settings: The collection's settings; queries depend only on the language.

    Raises:
        UsageError: For settings outside the formula's range, or an unknown language.
    """

    def __init__(self, settings: Bm25Settings) -> None:
        self.settings = settings
        self._weights = _bm25(settings.k, settings.b, settings.avg_len, settings.language)
        self._counts = _bm25(_COUNTING_K, 0.0, settings.avg_len, settings.language)

    def encode_passage(self, text: str) -> SparseVector:
        """Return the term-frequency weights of a passage, without the IDF."""
        vector = self._weights.embed_document(text)
        return SparseVector(vector.indices, vector.values)

    def encode_with_length(self, text: str) -> tuple[SparseVector, int]:
        """Return the weights of a passage and its `count_tokens`, tokenizing it only once.

        With c = k * (1 - b + b * length / avg_len), a weight w is of w * c / (k + 1 - w)
        occurrences of its token. The sum of these is the length, so one equation has it.
        """
        vector, settings = self.encode_passage(text), self.settings
        k, b = settings.k, settings.b
        highest = max(vector.values, default=0.0) / (k + 1)
        if k < _MIN_K or b > _MAX_B or highest > _MAX_SHARE:
            return vector, self.count_tokens(text)
        parts = sum([weight / (k + 1 - weight) for weight in vector.values])
        rest = 1 - parts * k * b / settings.avg_len
        if rest < _MIN_REST:  # a very long passage
            return vector, self.count_tokens(text)
        return vector, round(parts * k * (1 - b) / rest)

    def encode_query(self, text: str) -> SparseVector:
        """Return a weight of 1 for each token of a query; an empty vector for only stop words."""
        vector = self._weights.embed_query(text)
        return SparseVector(vector.indices, vector.values)

    def count_tokens(self, text: str) -> int:
        """Return a passage's length in the formula: its tokens without stop words."""
        return round(sum(self._counts.embed_document(text).values))


def _bm25(k: float, b: float, avg_len: float, language: str) -> Bm25:
    from qdrant_edge import Bm25, Bm25Config

    try:
        return Bm25(Bm25Config(k=k, b=b, avg_len=avg_len, language=language))
    except ValueError as exc:
        raise UsageError(f"invalid BM25 settings: {exc}") from exc
