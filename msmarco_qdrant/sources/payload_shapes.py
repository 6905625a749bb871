"""Payloads of other programs: the text, the metadata and the id that each keeps in a point.

Each shape is the one that its package writes by default:

* LangChain, `QdrantVectorStore` of langchain-qdrant 1.1: `page_content`, `metadata`.
* LlamaIndex, `QdrantVectorStore` of llama-index-vector-stores-qdrant 0.10: the node as JSON in
  `_node_content`, its metadata as further fields.
* Haystack, `QdrantDocumentStore` of qdrant-haystack 13: `id`, `content`, `meta` of a `Document`.
* "plain": the fields that a caller of qdrant-client chose; one of them is the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.fields import PASSAGE
from msmarco_qdrant.sources.rows import RowError, json_object, show_fields

Shape: TypeAlias = Literal["langchain", "llamaindex", "haystack", "plain"]

_NODE = "_node_content"
_NODE_FIELDS = frozenset({_NODE, "_node_type", "document_id", "doc_id", "ref_doc_id"})
_SOURCE_RELATION = "1"  # `NodeRelationship.SOURCE`: the document that a node was cut from
_PAGE = frozenset({"page_content", "metadata"})
_DOCUMENT = frozenset({"id", "content", "meta"})
_DOCUMENT_FIELDS = _DOCUMENT | {"blob", "dataframe", "embedding", "score", "sparse_embedding"}

# Names of a text in payloads; the last four are of qdrant-client's `add`, of LangChain and of
# tutorials.
TEXT_NAMES = (*PASSAGE.texts, "document", "page_content", "chunk", "chunk_text")
_WORDS = 3


@dataclass(frozen=True, slots=True)
class PayloadPassage:
    """The parts of a passage in a payload.

    Attributes:
        text: The text, of any type: it is not validated.
        meta: The other fields.
        pid: The id that the program gave it, None if that is the point's own.
    """

    text: Any
    meta: dict[str, Any]
    pid: str | None = None


def detect_shape(payload: Mapping[str, Any]) -> Shape:
    """Return the shape of a payload, by its fields alone."""
    if isinstance(payload.get(_NODE), str):
        return "llamaindex"
    if "page_content" in payload and isinstance(payload.get("metadata", {}), dict | None):
        return "langchain"
    if payload.keys() >= _DOCUMENT and payload.keys() <= _DOCUMENT_FIELDS:
        return "haystack"
    return "plain"


def parse_payload(payload: Mapping[str, Any], shape: Shape, text_field: str) -> PayloadPassage:
    """Return the text, the metadata and the id of a payload.

    Args:
        payload: The whole payload.
        shape: Its shape.
        text_field: The field with the text, for the shape "plain".

    Raises:
        RowError: If the text or the metadata cannot be read.
    """
    if shape == "langchain":
        return _page(payload)
    if shape == "llamaindex":
        return _node(payload)
    if shape == "haystack":
        return _document(payload)
    if text_field not in payload:
        raise RowError(f"no field '{text_field}' for the text in {show_fields(payload)}")
    meta = {name: value for name, value in payload.items() if name != text_field}
    return PayloadPassage(payload[text_field], meta)


def find_text_field(payloads: Sequence[Mapping[str, Any]]) -> str:
    """Return the field with the text of payloads of the shape "plain".

    It is the first of the known names that any of them has, else the only field whose strings
    have three words or more on average.

    Raises:
        SourceError: If no field, or more than one, can be the text.
    """
    fields = Counter(
        name for payload in payloads for name, value in payload.items() if isinstance(value, str)
    )
    for name in TEXT_NAMES:
        if name in fields:
            return name
    texts = [name for name in fields if _mean_words(payloads, name) >= _WORDS]
    if len(texts) == 1:
        return texts[0]
    if texts:
        raise SourceError(
            f"several fields can be the text: {', '.join(sorted(texts))}; choose one with "
            "text_field"
        )
    known = {name for payload in payloads for name in payload}
    raise SourceError(
        f"no field of the payloads is a text, of {show_fields(sorted(known))}; choose it with "
        "text_field"
    )


def _mean_words(payloads: Iterable[Mapping[str, Any]], name: str) -> float:
    values = [value for p in payloads if isinstance(value := p.get(name), str)]
    return sum(len(value.split()) for value in values) / len(values)


def _page(payload: Mapping[str, Any]) -> PayloadPassage:
    others = {name: value for name, value in payload.items() if name not in _PAGE}
    return PayloadPassage(payload["page_content"], _joined(payload.get("metadata") or {}, others))


def _document(payload: Mapping[str, Any]) -> PayloadPassage:
    if payload["content"] is None:
        found = [name for name in ("blob", "dataframe") if payload.get(name) is not None]
        raise RowError(f"a document with a {found[0]} instead of a text" if found else "no text")
    meta = payload["meta"] or {}
    if not isinstance(meta, Mapping):
        raise RowError(f"meta must be an object, got {type(meta).__name__}")
    return PayloadPassage(payload["content"], {**meta}, payload["id"])


def _node(payload: Mapping[str, Any]) -> PayloadPassage:
    """Read a node; its own metadata counts where another field differs, as in LlamaIndex."""
    node = json_object(payload[_NODE])
    resource = node.get("text_resource")
    texts = (node.get("text"), resource.get("text") if isinstance(resource, Mapping) else None)
    text = next((text for text in (*texts, payload.get("text")) if text), None)
    if text is None:
        raise RowError(f"a {payload.get('_node_type', 'node')} without a text")
    others = {n: v for n, v in payload.items() if n not in _NODE_FIELDS and n != "text"}
    relations = node.get("relationships")
    source = relations.get(_SOURCE_RELATION) if isinstance(relations, Mapping) else None
    if isinstance(source, Mapping) and isinstance(source.get("node_id"), str):
        others["ref_doc_id"] = source["node_id"]
    metadata = node.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise RowError(f"the node's metadata must be an object, got {type(metadata).__name__}")
    return PayloadPassage(text, {**others, **metadata}, node.get("id_"))


def _joined(metadata: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Join the metadata and the other fields.

    Raises:
        RowError: For a field that is in both with different values.
    """
    for name in metadata.keys() & others.keys():
        if metadata[name] != others[name]:
            raise RowError(f"field '{name}' is in the payload and in its metadata, and differs")
    return {**others, **metadata}
