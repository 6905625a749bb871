"""Batches of consecutive windows, launched on the devices without a pause between two windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Generic, TypeVar

from msmarco_qdrant.encoding.backends.base import Backend, ForwardPass, Task
from msmarco_qdrant.encoding.batching import split_by_tokens
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.runtime.fair_lock import FairLock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_W = TypeVar("_W")


@dataclass(frozen=True, slots=True, eq=False)
class Launched(Generic[_W]):
    """Texts of a window whose forward pass has begun.

    Attributes:
        window: The window.
        texts: All texts of the window.
        positions: int64 `(n,)`, which of them; none for a window without texts.
        forward: Their forward pass; None for texts without tokens, which have no vector.
        is_last: True for the last ones of their window.
    """

    window: _W
    texts: Tokenized
    positions: NDArray[np.int64]
    forward: ForwardPass | None
    is_last: bool


class Launcher:
    """Launches batches on the devices in turn, as many at once as keep all of them busy.

    Args:
        backends: One per device, all of the same kind.
        tokens_per_batch: Maximum tokens of a batch.
        lock: Held during each launch.
    """

    def __init__(self, backends: Sequence[Backend], tokens_per_batch: int, lock: FairLock) -> None:
        self._backends = cycle(backends)
        self._tokens_per_batch = tokens_per_batch
        self._needs_padding = backends[0].needs_padding
        self._max_in_flight = len(backends) * backends[0].max_in_flight
        self._lock = lock

    def run(
        self,
        windows: Iterator[tuple[_W, Tokenized]],
        is_ready: Callable[[], bool],
        task: Task,
    ) -> Iterator[Launched[_W]]:
        """Yield batches in the order of launching, each when its result is needed.

        Args:
            windows: Windows and their texts.
            is_ready: True if the next window is there, without waiting. Batches of the window
                before are yielded first, if it is not.
            task: The texts' task.
        """
        in_flight: deque[Launched[_W]] = deque()
        while True:
            while in_flight and not is_ready():
                yield in_flight.popleft()
            if (following := next(windows, None)) is None:
                return
            for launched in self._launch(*following, task):
                in_flight.append(launched)
                if len(in_flight) >= self._max_in_flight:
                    yield in_flight.popleft()

    def _launch(self, window: _W, texts: Tokenized, task: Task) -> Iterator[Launched[_W]]:
        import numpy as np

        empty, some = np.flatnonzero(texts.lengths == 0), np.flatnonzero(texts.lengths)
        split = split_by_tokens(
            texts.lengths[some], self._tokens_per_batch, padded=self._needs_padding
        )
        batches = [some[batch] for batch in split]
        if empty.size or not batches:
            yield Launched(window, texts, empty, None, not batches)
        for number, positions in enumerate(batches, start=1):
            with self._lock:
                forward = next(self._backends).launch(texts.take(positions), task)
            yield Launched(window, texts, positions, forward, number == len(batches))
