"""What search asks of a reranker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Reranker(Protocol):
    """A model that reads a phrase and a passage together. Any number of threads may call it.

    Implementations are `CrossEncoderReranker` (sentence-transformers) and
    `testing.CostlessReranker`.
    """

    @property
    def model(self) -> str:
        """The name that people know it by."""
        ...

    def warm_up(self) -> None:
        """Do now what happens once, so that the first pairs do not wait for it."""
        ...

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Tell how well each passage answers its phrase.

        Args:
            pairs: Any number of a phrase and a passage; a passage may be empty.

        Returns:
            float32 `(len(pairs),)`, in the order of `pairs`; higher is better, and only scores of
            one phrase compare.

        Raises:
            EncodingError: If the forward pass fails, or a score is not finite.
            UsageError: For one string, or one pair, instead of a list of pairs.
        """
        ...
