"""Properties of an encoder, and the vectors that it returns: frozen and slotted.

Shapes are `(rows, columns)`; vectors are NumPy arrays of `float32`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Similarity: TypeAlias = Literal["cosine", "dot"]


@dataclass(frozen=True, slots=True)
class Prompts:
    """Texts that a model expects in front of a query and of a passage ("" for none)."""

    query: str = ""
    passage: str = ""


NO_PROMPTS = Prompts()


FINGERPRINT_2 = "2-"
"""The beginning of a fingerprint of version 2; those of version 1 have none."""


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """The properties of an encoder that a collection stores.

    Attributes:
        model: Name or directory that it was loaded from: a hint for people, not an identity.
        fingerprint: A digest of everything that determines a vector: "2-" and 64 hexadecimal
            digits (sha256); without "2-" in collections of version 0.1.
        dimension: Length of its vectors.
        similarity: The similarity that the model was trained for.
        prompts: Texts put in front of queries and passages.
        max_seq_length: Tokens after which a text is truncated, special tokens included; None if
            no text is truncated.
        other_fingerprints: The model's fingerprints of other versions.
        pooling: Name of the pooling, such as "mean"; "" if it is not known.
        assumed: Properties that the model's files do not contain: "pooling", "similarity" or
            "maximum length".
    """

    model: str
    fingerprint: str
    dimension: int
    similarity: Similarity
    prompts: Prompts = NO_PROMPTS
    max_seq_length: int | None = None
    other_fingerprints: tuple[str, ...] = field(default=(), compare=False, repr=False)
    pooling: str = field(default="", compare=False)
    assumed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def vector_name(self) -> str:
        """Name of the dense vector, so that another model's queries cannot match it."""
        return f"dense-{self.fingerprint.removeprefix(FINGERPRINT_2)[:8]}"

    @property
    def fingerprints(self) -> Mapping[int, str]:
        """The fingerprint of each version that is known."""
        found = (*self.other_fingerprints, self.fingerprint)
        return {2 if one.startswith(FINGERPRINT_2) else 1: one for one in found}

    @property
    def encoding(self) -> str:
        """Description of how texts become vectors, for people."""
        prompts = (("query", self.prompts.query), ("passage", self.prompts.passage))
        given = [f"{name} prompt {text!r}" for name, text in prompts if text]
        length = self.max_seq_length
        parts = (
            *((f"{self.pooling} pooling",) if self.pooling else ()),
            f"{self.similarity} similarity",
            *(given or ("no prompts",)),
            "texts of any length" if length is None else f"at most {length:,} tokens",
        )
        assumed = f" (assumed: {', '.join(self.assumed)})" if self.assumed else ""
        return ", ".join(parts) + assumed

    def is_same_model_as(self, other: EncoderInfo) -> bool:
        """Return True if the fingerprints of the newest version that both have are equal."""
        ours, theirs = self.fingerprints, other.fingerprints
        common = ours.keys() & theirs.keys()
        return bool(common) and ours[max(common)] == theirs[max(common)]

    def has_same_vectors_as(self, other: EncoderInfo) -> bool:
        """Return True if both have the same model and similarity."""
        return self.is_same_model_as(other) and self.similarity == other.similarity

    def stored_as(self, stored: EncoderInfo) -> EncoderInfo:
        """Return these properties under the fingerprint, thus vector name, of `stored`."""
        found = {**self.fingerprints, **stored.fingerprints}
        others = tuple(one for one in found.values() if one != stored.fingerprint)
        return replace(self, fingerprint=stored.fingerprint, other_fingerprints=others)


@dataclass(frozen=True, slots=True)
class Int8Loss:
    """The precision of passages in int8: their cosines to float32, measured before int8 was used.

    Attributes:
        least: The least cosine.
        mean: The mean cosine.
        passages: Number of the passages.
    """

    least: float
    mean: float
    passages: int

    def __str__(self) -> str:
        return (
            f"cosine to float32 of {self.passages:,} passages: {self.least:.4f} at least, "
            f"{self.mean:.4f} on average"
        )


def worst_loss(losses: Iterable[Int8Loss | None]) -> Int8Loss | None:
    """Return the loss with the least cosine; None without one."""
    found = [loss for loss in losses if loss is not None]
    return min(found, key=lambda loss: loss.least, default=None)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBatch:
    """Vectors of some of an encoder's input texts.

    Attributes:
        positions: int64 `(n,)`, indices of these texts in the input.
        vectors: float32 `(n, dimension)`, of unit length if the similarity is cosine. A text
            without a finite, non-zero vector has a row of NaN.
    """

    positions: NDArray[np.int64]
    vectors: NDArray[np.float32]
