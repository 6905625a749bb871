"""Protocols between `BiEncoder` and the libraries that run a model's forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Task: TypeAlias = Literal["query", "document"]


class ForwardPass(Protocol):
    """A forward pass that may still be running."""

    def result(self) -> NDArray[np.float32]:
        """Wait for its end.

        Returns:
            float32 `(rows, dimension)`, the output of the model's last module.

        Raises:
            EncodingError: If it failed, for example without enough memory.
        """
        ...


@dataclass(frozen=True, slots=True)
class FinishedPass:
    """A forward pass that has ended."""

    vectors: NDArray[np.float32]

    def result(self) -> NDArray[np.float32]:
        """Return the vectors."""
        return self.vectors


class Backend(Protocol):
    """A model on one device. One thread at a time launches; several passes may be in flight.

    Attributes:
        device: The device, such as "cpu" or "cuda:0".
        precision: "float32", "bfloat16", "float16", "int8" or "fp8".
        tokens_per_batch: Tokens per batch that are fast on this device.
        needs_padding: True if texts of a batch are padded to the longest.
        max_in_flight: Passes to launch before waiting for the first, so that the device is never
            idle.
    """

    device: str
    precision: str
    tokens_per_batch: int
    needs_padding: bool
    max_in_flight: int

    def launch(self, batch: Tokenized, task: Task) -> ForwardPass:
        """Start a forward pass over all texts of `batch`.

        Raises:
            EncodingError: If it cannot start.
        """
        ...
