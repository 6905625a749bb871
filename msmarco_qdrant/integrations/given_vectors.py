"""Writes of passages whose vectors the caller has already computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.encoder_types import EncodedBatch, EncoderInfo
from msmarco_qdrant.core.records import WINDOW, Passage
from msmarco_qdrant.core.reports import UpsertReport
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import ModelMismatchError
from msmarco_qdrant.integrations.text_encoder import TextTokenizer, to_texts, unit_rows
from msmarco_qdrant.search.client import SearchClient

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class GivenVectors:
    """An encoder that returns given vectors, and encodes the texts that have none.

    Args:
        vectors: float32 `(dimension,)` by text, of any length.
        encoder: The encoder of the same model.

    Raises:
        ModelMismatchError: If a vector has another dimension.
    """

    def __init__(self, vectors: Mapping[str, NDArray[np.float32]], encoder: Encoder) -> None:
        self._vectors, self._encoder = vectors, encoder
        dimension = encoder.info.dimension
        for text, vector in vectors.items():
            if vector.shape != (dimension,):
                raise ModelMismatchError(
                    f"a vector of {encoder.info.model} must have {dimension} numbers, got the "
                    f"shape {vector.shape} for the text {text[:60]!r}: embed it with that model"
                )

    @property
    def info(self) -> EncoderInfo:
        """The properties of the encoder."""
        return self._encoder.info

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer, which only carries the texts."""
        return TextTokenizer()

    def warm_up(self) -> None:
        """Warm the encoder up."""
        self._encoder.warm_up()

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Return the given vectors as one batch, then the others as they are encoded."""
        import numpy as np

        texts = to_texts(passages)
        is_given = np.array([text in self._vectors for text in texts], bool)
        if is_given.any():
            rows = np.stack([self._vectors[text] for text in texts if text in self._vectors])
            yield EncodedBatch(np.flatnonzero(is_given), unit_rows(rows, self.info.similarity))
        positions = np.flatnonzero(~is_given)
        if len(positions):
            others = self._encoder.tokenizer([texts[at] for at in positions])
            for batch in self._encoder.encode_passages(others):
                yield EncodedBatch(positions[batch.positions], batch.vectors)

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries."""
        return self._encoder.encode_queries(queries)


def upsert_with_vectors(
    client: SearchClient, passages: Sequence[Passage], vectors: Mapping[str, Sequence[float]]
) -> UpsertReport:
    """Write passages as `SearchClient.upsert` does, with given vectors.

    A passage whose text is stored already keeps its vector, as one text has one vector.

    Args:
        client: The client.
        passages: The passages. Of those with the same pid the last one is written.
        vectors: Vectors by pid; the client's encoder encodes the other passages.

    Raises:
        ModelMismatchError: If a vector has not the dimension of the collection's model.
        StoreError: If the store fails.
    """
    import numpy as np

    latest = {
        passage.pid: replace(passage, line=number)
        for number, passage in enumerate(passages, start=1)
    }
    by_text = {
        passage.text: np.asarray(vectors[pid], np.float32)
        for pid, passage in latest.items()
        if pid in vectors
    }
    report = UpsertReport(superseded=len(passages) - len(latest))
    for batch in in_batches(latest.values(), WINDOW):
        outcomes = client.writer.upsert_using(batch, partial(GivenVectors, by_text))
        report += client.writer.report(outcomes)
    return report
