"""Batches of windows that follow each other, launched on backends that note what happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.encoding.backends.base import ForwardPass, Task
from msmarco_qdrant.encoding.launcher import Launcher
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.encoding.windows import encode_windows
from msmarco_qdrant.runtime.fair_lock import FairLock
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.testing import HashingEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOKENS = 4  # per batch


@dataclass
class NotingBackend:
    """A backend of two passes at once, whose vectors are the first token of each text."""

    events: list[str] = field(default_factory=list)
    device: str = "cpu"
    precision: str = "float32"
    tokens_per_batch: int = TOKENS
    needs_padding: bool = True
    max_in_flight: int = 2

    def launch(self, batch: Tokenized, task: Task) -> ForwardPass:
        """Note the first id of the batch."""
        assert "document" == task
        self.events.append(f"launch {batch.ids[0]}")
        return NotedPass(self.events, batch)


@dataclass(frozen=True)
class NotedPass:
    """A pass that notes when it is waited for."""

    events: list[str]
    batch: Tokenized

    def result(self) -> NDArray[np.float32]:
        """The first token of each text."""
        self.events.append(f"result {self.batch.ids[0]}")
        return self.batch.ids[self.batch.offsets[:-1], None].astype(np.float32)


def window(first: int, lengths: list[int]) -> Tokenized:
    """Texts of these lengths, of which the first has the token `first`, the next one more."""
    rows = [[first + number] * length for number, length in enumerate(lengths)]
    return Tokenized.from_rows(rows)


def noted(windows: list[tuple[str, Tokenized]], *, ready: bool) -> list[str]:
    """What happens: launches, waits for results, and ends of windows."""
    backend = NotingBackend()
    left = [*windows]
    given = (left.pop(0) for _ in windows)
    launcher = Launcher([backend], TOKENS, FairLock())
    for launched in launcher.run(given, lambda: ready and bool(left), "document"):
        if launched.forward is not None:
            launched.forward.result()
        if launched.is_last:
            backend.events.append(f"end {launched.window}")
    return backend.events


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        (True, "launch 1, launch 2, result 1, launch 11, result 2, end a, result 11, end b"),
        (False, "launch 1, launch 2, result 1, result 2, end a, launch 11, result 11, end b"),
    ],
)
def test_a_window_begins_before_the_one_before_it_ends_if_it_is_ready(
    ready: bool, expected: str
) -> None:
    """If it is not, no result waits for it; the order of batches is the same."""
    windows = [("a", window(1, [4, 4])), ("b", window(11, [4]))]
    assert expected.split(", ") == noted(windows, ready=ready)


@pytest.mark.parametrize("ready", [True, False])
def test_every_window_ends_once_also_without_texts_or_tokens(ready: bool) -> None:
    """Texts without tokens have no forward pass."""
    windows = [("a", window(1, [])), ("b", window(2, [0, 0])), ("c", window(5, [0, 3]))]
    expected = ["end a", "end b", "launch 6", "result 6", "end c"]
    assert expected == noted(windows, ready=ready)


class Doubling(HashingEncoder):
    """An encoder of a class of its own."""

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Vectors twice as long."""
        for batch in super().encode_passages(passages):
            yield EncodedBatch(batch.positions, batch.vectors * 2)


def test_windows_of_any_encoder_come_in_order() -> None:
    """By its `encode_passages`; a window without passages only ends."""
    encoder = Doubling()
    windows = [("a", encoder.tokenizer(["one", "two"])), ("b", encoder.tokenizer([]))]
    with Pipeline() as pipeline:
        found = list(encode_windows(encoder, pipeline.run(windows, prefetch=1)))
    (_, batch), *ends = found
    assert [("a", None), ("b", None)] == ends
    assert batch is not None
    np.testing.assert_allclose(np.linalg.norm(batch.vectors, axis=1), 2.0, rtol=1e-6)
