"""Embedders of Haystack with a model of this package."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike, fspath
from typing import Any

from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.encoding.options import to_encoder_options
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.extras import imports_of

with imports_of("haystack", "the Haystack integration", "haystack"):
    from haystack import component, default_from_dict, default_to_dict
    from haystack.dataclasses import Document


class _Embedder:
    """A model that is loaded by `warm_up` or by the first call; thread-safe."""

    def __init__(
        self,
        model: str | PathLike[str],
        *,
        encoder_options: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        to_encoder_options(encoder_options)
        self._parameters = {
            "model": fspath(model),
            "encoder_options": None if encoder_options is None else dict(encoder_options),
            **others,
        }
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None

    def warm_up(self) -> None:
        """Load the model."""
        self._load()

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component."""
        data: dict[str, Any] = default_to_dict(self, **self._parameters)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """Make the component that `to_dict` serialized."""
        return default_from_dict(cls, data)

    def _load(self) -> Encoder:
        with self._lock:
            if self._encoder is None:
                options = to_encoder_options(self._parameters["encoder_options"])
                self._encoder = load_encoder(self._parameters["model"], **asdict(options))
            return self._encoder


@component
class MsmarcoTextEmbedder(_Embedder):
    """Embeds a query.

    Args:
        model: A directory, a name of the catalog, or a hub id.
        encoder_options: Fields of `EncoderOptions`, such as `{"precision": "float32"}`.
    """

    def __init__(
        self, model: str | PathLike[str], encoder_options: dict[str, Any] | None = None
    ) -> None:
        # Not `super()`: `component` replaces this class by another one.
        _Embedder.__init__(self, model, encoder_options=encoder_options)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """Embed a query.

        Args:
            text: The query.

        Raises:
            UsageError: If it is not a string.
            EncodingError: If the model has no vector for it.
        """
        if not isinstance(text, str):
            raise UsageError(f"text must be a string, got {text!r}: documents need the other one")
        return {"embedding": self._load().encode_queries([text])[0].tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """Embed a query in a thread; see `run`."""
        return await asyncio.to_thread(self.run, text)


@component
class MsmarcoDocumentEmbedder(_Embedder):
    """Embeds documents, sorted by length and without padding, as an ingest does.

    `MsmarcoDocumentStore` encodes documents without an embedding itself; this component is for
    other document stores, and for fields of `meta` in front of the content.

    Args:
        model: A directory, a name of the catalog, or a hub id.
        encoder_options: Fields of `EncoderOptions`, such as `{"precision": "float32"}`.
        meta_fields_to_embed: Fields of `meta` to put in front of the content.
        embedding_separator: Text between these.
    """

    def __init__(
        self,
        model: str | PathLike[str],
        encoder_options: dict[str, Any] | None = None,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
    ) -> None:
        _Embedder.__init__(
            self,
            model,
            encoder_options=encoder_options,
            meta_fields_to_embed=[*meta_fields_to_embed],
            embedding_separator=embedding_separator,
        )
        self._fields, self._separator = [*meta_fields_to_embed], embedding_separator

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Embed documents; those given stay as they are.

        Args:
            documents: The documents.

        Raises:
            UsageError: If they are not a list of documents.
            EncodingError: If the model has no vector for one of them.
        """
        if not isinstance(documents, list) or not all(isinstance(d, Document) for d in documents):
            raise UsageError(f"documents must be a list of documents, got {documents!r}"[:200])
        texts = [join_fields(document, self._fields, self._separator) for document in documents]
        vectors = encode_texts(self._load(), texts).tolist() if texts else []
        pairs = zip(documents, vectors, strict=True)
        return {"documents": [replace(document, embedding=row) for document, row in pairs]}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Embed documents in a thread; see `run`."""
        return await asyncio.to_thread(self.run, documents)


def join_fields(document: Document, fields: Sequence[str], separator: str) -> str:
    """Return the content of a document behind some fields of its `meta`."""
    values = [document.meta[name] for name in fields if document.meta.get(name) is not None]
    return separator.join([*map(str, values), document.content or ""])
