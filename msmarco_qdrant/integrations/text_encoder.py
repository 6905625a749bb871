"""An encoder made of functions from texts to vectors, such as those of another framework."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.core.encoder_types import EncodedBatch, EncoderInfo, Similarity
from msmarco_qdrant.core.search_types import PointQuery
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError, ModelMismatchError
from msmarco_qdrant.stores import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Embed: TypeAlias = Callable[[list[str]], Sequence[Sequence[float]]]
"""Returns one vector for each text."""

_TEXTS_PER_CALL = 64
_MIN_COSINE = 0.98
"""Services return slightly different vectors of one text; those of two models differ by far."""


class TextTokenizer:
    """A tokenizer whose tokens are the characters of a text: `to_texts` gives the texts back."""

    @property
    def portable(self) -> bool:
        """True: it can be pickled."""
        return True

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Return the code points of each text."""
        import numpy as np

        joined = "".join(texts).encode("utf-32-le", "surrogatepass")
        return Tokenized.from_lengths(np.frombuffer(joined, np.int32), [len(one) for one in texts])


def to_texts(passages: Tokenized) -> list[str]:
    """Return the texts that `TextTokenizer` was called with."""
    joined = passages.ids.tobytes().decode("utf-32-le", "surrogatepass")
    offsets = passages.offsets.tolist()
    return [joined[start:end] for start, end in pairwise(offsets)]


class TextEncoder:
    """An encoder made of two functions from texts to vectors.

    Collections store `model` and the dimension as its identity. `require_same_space` also compares
    a vector.

    Args:
        embed_passages: Embeds passages, at most 64 in a call.
        embed_queries: Embeds queries.
        model: Name of the model. The same name must always mean the same vectors.
        similarity: The similarity that the model was trained for.

    Raises:
        EncodingError: If a function does not return one row of numbers for each text.
    """

    def __init__(
        self,
        embed_passages: Embed,
        embed_queries: Embed,
        *,
        model: str,
        similarity: Similarity = "cosine",
    ) -> None:
        self._embed_passages, self._embed_queries = embed_passages, embed_queries
        self._model, self._similarity = model, similarity
        dimension = len(self._vectors(embed_passages, ["dimension"])[0])
        self._info = named_model(model, dimension, similarity)

    def __repr__(self) -> str:
        return f"TextEncoder(model={self._model!r}, dimension={self._info.dimension})"

    @property
    def info(self) -> EncoderInfo:
        """The properties that a collection stores."""
        return self._info

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer, which only carries the texts."""
        return TextTokenizer()

    def warm_up(self) -> None:
        """Do nothing: the constructor has embedded a text."""

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Embed passages in order, 64 in a call."""
        import numpy as np

        texts = to_texts(passages)
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            part = texts[start : start + _TEXTS_PER_CALL]
            vectors = unit_rows(self._vectors(self._embed_passages, part), self._similarity)
            yield EncodedBatch(np.arange(start, start + len(part)), vectors)

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Embed queries: float32 `(len(queries), dimension)`.

        Raises:
            EncodingError: If a query has no finite, non-zero vector.
        """
        import numpy as np

        if not queries:
            return np.empty((0, self._info.dimension), np.float32)
        vectors = unit_rows(self._vectors(self._embed_queries, [*queries]), self._similarity)
        if not np.isfinite(vectors).all():
            raise EncodingError(f"{self._model} returns no finite, non-zero vector for a query")
        return vectors

    def _vectors(self, embed: Embed, texts: list[str]) -> NDArray[np.float32]:
        import numpy as np

        try:
            vectors = np.asarray(embed(texts), np.float32)
        except (TypeError, ValueError) as exc:  # not rows of numbers, or of different lengths
            raise EncodingError(f"{self._model} must return rows of numbers: {exc}") from exc
        info = getattr(self, "_info", None)  # none while the constructor asks for the dimension
        expected = (len(texts), vectors.shape[-1] if info is None else info.dimension)
        if vectors.shape != expected or not vectors.size:
            raise EncodingError(
                f"{self._model} must return vectors of the shape {expected}, got {vectors.shape}"
            )
        return vectors


def named_model(model: str, dimension: int, similarity: Similarity) -> EncoderInfo:
    """Return the properties of a model that only its name identifies, as it has no files here."""
    identity = f"{model}\n{dimension}\n{similarity}".encode()
    fingerprint = f"2-{hashlib.sha256(identity).hexdigest()}"
    return EncoderInfo(model, fingerprint, dimension, similarity)


def unit_rows(vectors: NDArray[np.float32], similarity: Similarity) -> NDArray[np.float32]:
    """Scale rows to unit length for cosine; a row without a direction becomes NaN."""
    import numpy as np

    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    is_usable = np.isfinite(norms) & (norms > 0)
    divisor = norms if similarity == "cosine" else np.ones_like(norms)
    return (vectors / np.where(is_usable, divisor, np.nan)).astype(np.float32, copy=False)


def require_same_space(store: Store, collection: str, encoder: Encoder) -> None:
    """Refuse an encoder whose vector of a stored passage differs from the stored one.

    An empty collection is not checked.

    Raises:
        ModelMismatchError: If it differs.
    """
    import numpy as np

    name = store.metadata(collection).encoder.vector_name
    physical = store.collection(store.aliases().get(collection, collection))
    query = PointQuery(None, 1, fields=("text",), vector=name)
    for point in physical.query([query])[0]:
        text = point.payload.get("text")
        if point.vector is not None and isinstance(text, str):
            require_same_vector(collection, text, np.asarray(point.vector, np.float32), encoder)


def require_same_vector(
    collection: str, text: str, vector: NDArray[np.float32], encoder: Encoder
) -> None:
    """Refuse a vector that an encoder does not return for its text.

    Raises:
        ModelMismatchError: If the cosine of both vectors is less than 0.98, or they differ in
            dimension.
    """
    import numpy as np

    (own,) = encode_texts(encoder, [text])
    if own.shape != vector.shape:
        found = f"{len(vector)} instead of {len(own)} numbers"
    else:
        norms = float(np.linalg.norm(own) * np.linalg.norm(vector))
        cosine = float(own @ vector) / norms if norms else 0.0
        if cosine >= _MIN_COSINE:
            return
        found = f"a cosine of {cosine:.3f}"
    raise ModelMismatchError(
        f"collection '{collection}' needs vectors of one model: the vector of the text "
        f"{text[:60]!r} differs from that of {encoder.info.model} ({found}): pass the embedder "
        "that the collection was made with, or use another collection"
    )
