"""What `BiEncoder` asks of whatever runs a model's forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Task: TypeAlias = Literal["query", "document"]


class Launched(Protocol):
    """A forward pass that may still be running."""

    def result(self) -> NDArray[np.float32]:
        """Wait for it.

        Returns:
            float32 `(rows, dimension)`, as the model's last module gives them.

        Raises:
            EncodingError: If it failed, as when memory ran out.
        """
        ...


class Backend(Protocol):
    """A model on one device. One thread at a time launches; several passes may be under way."""

    @property
    def name(self) -> str:
        """What runs it: "torch" or "openvino"."""
        ...

    @property
    def device(self) -> str:
        """Where it runs, such as "cpu" or "cuda:0"."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in: "float32", "bfloat16", "float16" or "int8"."""
        ...

    @property
    def tokens_per_batch(self) -> int:
        """Tokens of a batch that this device is fast with."""
        ...

    @property
    def pads(self) -> bool:
        """Whether texts of a batch are padded to the longest."""
        ...

    @property
    def ahead(self) -> int:
        """Passes to launch before the first is waited for, so that the device never is idle."""
        ...

    def launch(self, batch: Tokenized, task: Task) -> Launched:
        """Begin a forward pass over all texts of `batch`.

        Raises:
            EncodingError: If it cannot be begun.
        """
        ...
