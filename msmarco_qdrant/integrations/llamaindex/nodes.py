"""Nodes of LlamaIndex as passages, and the reverse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.core.records import Meta, Passage, Reject
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.sources.rejects import check_row

with imports_of("llama_index", "the LlamaIndex integration", "llamaindex"):
    from llama_index.core.schema import BaseNode, MetadataMode, TextNode
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCUMENT_FIELD = "doc_id"
"""The field with the id of the document that a node is part of, as LlamaIndex writes it."""
_CONTENT_FIELD = "_node_content"


def to_passages(nodes: Iterable[Any]) -> tuple[list[Passage], dict[str, Sequence[float]]]:
    """Return nodes as passages, and the embeddings of those that have one, by id.

    The text is what LlamaIndex embeds: metadata and text, by the node's templates.

    Raises:
        UsageError: For a node that cannot be a passage.
    """
    passages, vectors = [], {}
    for number, node in enumerate(nodes, start=1):
        if not isinstance(node, BaseNode):
            kind = with_article(type(node).__name__)
            raise UsageError(f"nodes must be a list of nodes, got {kind}")
        text = node.get_content(metadata_mode=MetadataMode.EMBED)
        is_plain = text == node.get_content(metadata_mode=MetadataMode.NONE)
        row = check_row(
            Passage(node.node_id, text, node_to_metadata_dict(node, remove_text=is_plain))
        )
        if isinstance(row, Reject):
            raise UsageError(f"node {number} cannot be added: {row.reason}; none was added")
        passages.append(row)
        if node.embedding is not None:
            vectors[row.pid] = node.embedding
    return passages, vectors


def to_node(found: Passage | Hit) -> Any:
    """Return a passage or a hit as a node, also one that another program than LlamaIndex wrote."""
    if _CONTENT_FIELD not in found.meta:
        return _to_text_node(found.pid, found.text, found.meta)
    node = metadata_dict_to_node(found.meta)
    is_empty = not node.get_content(metadata_mode=MetadataMode.NONE)
    if is_empty and node.get_content(metadata_mode=MetadataMode.EMBED) != found.text:
        node.set_content(found.text)  # unless the node has nothing but metadata
    return node


def _to_text_node(pid: str, text: str, meta: Meta) -> Any:
    """Return a node of which LlamaIndex embeds the text alone, as the passage was."""
    return TextNode(id_=pid, text=text, metadata=meta, excluded_embed_metadata_keys=list(meta))
