"""Token ids of many texts, end to end: the data between tokenizer and forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Tokenized:
    """Texts as token ids, special tokens included, without padding.

    Attributes:
        ids: int32 `(tokens,)`, the ids of all texts, one text after the other.
        offsets: int64 `(n + 1,)`; text `i` is `ids[offsets[i]:offsets[i + 1]]`.
        cut: bool `(n,)`, True for a text whose end the maximum length cut off; None if it is not
            known, or no text is cut.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    cut: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 `(n,)`, tokens of each text."""
        lengths: NDArray[np.int64] = self.offsets[1:] - self.offsets[:-1]
        return lengths

    @classmethod
    def from_lengths(
        cls,
        ids: NDArray[np.int32],
        lengths: Sequence[int] | NDArray[np.int64],
        cut: NDArray[np.bool_] | None = None,
    ) -> Tokenized:
        """Split `ids` into texts with `lengths` tokens each."""
        import numpy as np

        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(ids, offsets, cut)

    @classmethod
    def joined(cls, parts: Sequence[Tokenized]) -> Tokenized:
        """Concatenate the texts of `parts`, in order."""
        import numpy as np

        ids = np.concatenate([part.ids for part in parts])
        lengths = np.concatenate([part.lengths for part in parts])
        cut = np.concatenate([part.which_cut() for part in parts])
        return cls.from_lengths(ids, lengths, cut)

    @classmethod
    def from_rows(
        cls, rows: Sequence[Sequence[int]], cut: NDArray[np.bool_] | None = None
    ) -> Tokenized:
        """Concatenate lists of token ids."""
        import numpy as np

        lengths = [len(row) for row in rows]
        ids = np.fromiter(chain.from_iterable(rows), np.int32, sum(lengths))
        return cls.from_lengths(ids, lengths, cut)

    def which_cut(self) -> NDArray[np.bool_]:
        """Return bool `(n,)`, True for each text that is known to be cut."""
        import numpy as np

        return np.zeros(len(self), bool) if self.cut is None else self.cut

    def equals(self, other: Tokenized) -> bool:
        """True if both have the same texts, in the same order."""
        import numpy as np

        return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.ids, other.ids)

    def take(self, positions: NDArray[np.int64]) -> Tokenized:
        """Select texts, in the order of `positions`, int64 `(m,)`."""
        import numpy as np

        cut = None if self.cut is None else self.cut[positions]
        taken = Tokenized.from_lengths(self.ids[:0], self.lengths[positions], cut)
        shifts = self.offsets[positions] - taken.offsets[:-1]
        places = np.arange(taken.offsets[-1]) + np.repeat(shifts, taken.lengths)
        return Tokenized(self.ids[places], taken.offsets, cut)

    def padded(self, pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pad the texts to rows of equal length.

        Returns:
            The ids, int64 `(n, longest)`, padded on the right with `pad_id`, and a mask of the
            same shape and type: 1 for a token, 0 for padding.
        """
        import numpy as np

        lengths = self.lengths
        mask = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
        rows = np.full(mask.shape, pad_id, np.int64)
        rows[mask] = self.ids
        return rows, mask.astype(np.int64)
