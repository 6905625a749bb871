"""Payloads of frameworks, as their packages write them; tests/integrations has the packages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.payload_shapes import (
    PayloadPassage,
    detect_shape,
    find_text_field,
    parse_payload,
)
from msmarco_qdrant.sources.rows import RowError

PAGE = {"page_content": "sea music", "metadata": {"n": 1}}
NODE = {
    "_node_content": json.dumps(
        {
            "id_": "node-1",
            "metadata": {"n": 1},
            "relationships": {"1": {"node_id": "file.pdf", "class_name": "RelatedNodeInfo"}},
            "text": "sea music",
        }
    ),
    "_node_type": "TextNode",
    "n": 1,
    "doc_id": "file.pdf",
    "document_id": "file.pdf",
    "ref_doc_id": "file.pdf",
}
DOCUMENT = {
    "id": "a1b2",
    "content": "sea music",
    "meta": {"n": 1},
    "blob": None,
    "score": None,
    "sparse_embedding": None,
}
PLAIN = {"body": "sea music", "n": 1}


@pytest.mark.parametrize(
    ("payload", "shape", "expected"),
    [
        (PAGE, "langchain", PayloadPassage("sea music", {"n": 1})),
        (PAGE | {"metadata": None}, "langchain", PayloadPassage("sea music", {})),
        (PAGE | {"tenant": "a"}, "langchain", PayloadPassage("sea music", {"tenant": "a", "n": 1})),
        (
            NODE,
            "llamaindex",
            PayloadPassage("sea music", {"n": 1, "ref_doc_id": "file.pdf"}, "node-1"),
        ),
        (
            {"_node_content": '{"id_": "2", "text_resource": {"text": "sea"}}', "doc_id": "None"},
            "llamaindex",
            PayloadPassage("sea", {}, "2"),
        ),
        (
            {"_node_content": '{"id_": "3", "text": ""}', "text": "beside the node"},
            "llamaindex",
            PayloadPassage("beside the node", {}, "3"),
        ),
        (DOCUMENT, "haystack", PayloadPassage("sea music", {"n": 1}, "a1b2")),
        (PLAIN, "plain", PayloadPassage("sea music", {"n": 1})),
        (DOCUMENT | {"lang": "en", "body": "x"}, "plain", None),
    ],
)
def test_each_shape_is_detected_and_read(
    payload: dict[str, Any], shape: Any, expected: PayloadPassage | None
) -> None:
    """Text, metadata and the framework's id; what only the framework needs is left out."""
    assert shape == detect_shape(payload)
    if expected is not None:
        assert expected == parse_payload(payload, shape, "body")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"_node_content": "{"}, "broken JSON"),
        (
            {"_node_content": '{"text": ""}', "_node_type": "ImageNode"},
            "a ImageNode without a text",
        ),
        ({"_node_content": '{"text": "a", "metadata": 3}'}, "metadata must be an object, got int"),
        (DOCUMENT | {"content": None}, "no text"),
        (DOCUMENT | {"content": None, "blob": {"data": [1]}}, "a document with a blob instead"),
        (DOCUMENT | {"meta": "x"}, "meta must be an object, got str"),
        (PAGE | {"n": 2}, "field 'n' is in the payload and in its metadata, and differs"),
        ({"title": "x"}, "no field 'body' for the text"),
    ],
)
def test_unreadable_payloads_are_refused_with_their_reason(
    payload: dict[str, Any], reason: str
) -> None:
    """Nothing is guessed."""
    with pytest.raises(RowError, match=reason):
        parse_payload(payload, detect_shape(payload), "body")


@pytest.mark.parametrize(
    ("payloads", "field"),
    [
        ([{"url": "http://x", "text": "a"}], "text"),
        ([{"document": "a b c", "source": "a long name of a file"}], "document"),
        ([{"n": 1}, {"abstract": "four words are here", "author": "Ann Lee"}], "abstract"),
    ],
)
def test_the_field_with_the_text_is_found(payloads: list[dict[str, Any]], field: str) -> None:
    """By a known name, else by its words."""
    assert field == find_text_field(payloads)


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        (
            [{"question": "how big is it", "answer": "it is very big"}],
            "several fields can be the text: answer, question; choose one with text_field",
        ),
        ([{"n": 1, "lang": "en"}], "no field of the payloads is a text, of .*lang.*n"),
        ([{}], "no field of the payloads is a text"),
    ],
)
def test_a_doubtful_text_is_refused(payloads: list[dict[str, Any]], message: str) -> None:
    """The message names the fields and the argument."""
    with pytest.raises(SourceError, match=message):
        find_text_field(payloads)
