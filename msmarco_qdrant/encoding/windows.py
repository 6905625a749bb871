"""Windows of passages through any encoder, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.protocols import Encoder
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.runtime.pipeline import Channel

_W = TypeVar("_W")


def encode_windows(
    encoder: Encoder, windows: Channel[tuple[_W, Tokenized]]
) -> Iterator[tuple[_W, EncodedBatch | None]]:
    """Encode windows, yielding each batch with its window, and None at a window's end.

    `BiEncoder` begins a window that is ready before the one before it ends. With many cores or a
    GPU, which work on several batches at once, they would else wait for the last batch of each.

    Args:
        encoder: The encoder.
        windows: Windows and their passages, tokenized by `encoder.tokenizer`.
    """
    # An encoder of another class may change what `encode_passages` returns.
    if type(encoder) is BiEncoder:
        yield from encoder.encode_windows(windows, windows.is_ready)
        return
    for window, passages in windows:
        if len(passages):
            for batch in encoder.encode_passages(passages):
                yield window, batch
        yield window, None
