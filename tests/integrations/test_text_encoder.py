"""Encoders made of a framework's functions, and given vectors; no framework is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    EncodingError,
    ModelMismatchError,
    MsmarcoQdrantError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.integrations.given_vectors import upsert_with_vectors
from msmarco_qdrant.integrations.loop_clients import LoopClients
from msmarco_qdrant.integrations.mmr import select_by_mmr
from msmarco_qdrant.integrations.text_encoder import TextEncoder, TextTokenizer, to_texts
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder


@pytest.fixture
def client() -> Iterator[SearchClient]:
    """A client of a collection of two passages."""
    encoder = HashingEncoder()
    with open_store(":memory:", create=True) as store:
        ingest_passages([("1", "london"), ("2", "paris")], store, encoder=encoder)
        with SearchClient.open(store, encoder=encoder) as opened:
            yield opened


def lengths(texts: list[str]) -> list[list[float]]:
    """Embed texts by their lengths."""
    return [[1.0, float(len(text))] for text in texts]


@pytest.mark.parametrize(
    "texts", [[], [""], ["a", "", "bc"], ["é 😀 \u0000", "𝄞"], ["\ud800"]], ids=repr
)
def test_texts_survive_the_tokenizer(texts: list[str]) -> None:
    """Every character, also those that are no valid text."""
    assert texts == to_texts(TextTokenizer()(texts))


def test_many_texts_are_embedded_some_at_a_time() -> None:
    """In order, and scaled to unit length for cosine; not for a dot product."""
    calls: list[int] = []

    def embed(texts: list[str]) -> list[list[float]]:
        calls.append(len(texts))
        return lengths(texts)

    texts = ["a" * number for number in range(1, 131)]
    encoder = TextEncoder(embed, embed, model="lengths")
    vectors = encode_texts(encoder, texts)
    assert [1, 64, 64, 2] == calls
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(vectors[:, 1] / vectors[:, 0], range(1, 131), rtol=1e-5)
    plain = TextEncoder(embed, embed, model="lengths", similarity="dot")
    assert [[1.0, 2.0]] == plain.encode_queries(["ab"]).tolist()
    assert (0, 2) == plain.encode_queries([]).shape
    assert not plain.info.is_same_model_as(encoder.info)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda texts: [[1.0]] * (len(texts) + 1), "of the shape"),
        (lambda texts: [1.0] * len(texts), "of the shape"),
        (lambda texts: [[1.0, 2.0, 3.0]] * len(texts), "of the shape"),
        (lambda texts: [["a", "b"]] * len(texts), "rows of numbers"),
        (lambda texts: [[1.0, 2.0]] * (len(texts) - 1) + [[1.0]], "rows of numbers|the shape"),
        (lambda _: None, "rows of numbers|the shape"),
        (lambda texts: [[0.0, 0.0]] * len(texts), "no finite, non-zero vector"),
        (lambda texts: [[float("nan"), 0.0]] * len(texts), "no finite, non-zero vector"),
    ],
    ids=["more", "flat", "dimension", "texts", "ragged", "none", "zero", "nan"],
)
def test_wrong_answers_of_an_embedder_are_refused(
    answer: Callable[[list[str]], Any], message: str
) -> None:
    """Before anything is written."""
    encoder = TextEncoder(lengths, answer, model="lengths")
    with pytest.raises(EncodingError, match=message):
        encoder.encode_queries(["a", "b"])
    broken = TextEncoder(
        lambda texts: answer(texts) if len(texts) > 1 else lengths(texts), lengths, model="l"
    )
    with pytest.raises(EncodingError, match=message):
        encode_texts(broken, ["a", "b"])


def test_given_vectors_are_stored_and_others_encoded(client: SearchClient) -> None:
    """Of unit length; a second write of the same changes nothing."""
    rows = [Passage("3", "rome"), Passage("4", "london is big"), Passage("5", "oslo")]
    vector = [2.0, *[0.0] * 63]
    assert 3 == upsert_with_vectors(client, rows, {"3": vector}).written
    assert 3 == upsert_with_vectors(client, rows, {"3": vector}).unchanged
    (hit,) = client.similar(vector=vector, limit=1, with_vectors=True)
    assert ("3", 1.0) == (hit.pid, hit.vector[0] if hit.vector else None)
    assert "4" == client.search("london is big", limit=1)[0].pid
    with pytest.raises(ModelMismatchError, match="must have 64 numbers"):
        upsert_with_vectors(client, [Passage("6", "bonn")], {"6": [1.0]})
    report = upsert_with_vectors(client, [Passage("6", "bonn")], {"6": [0.0] * 64})
    assert (0, 1) == (report.written, report.rejected)


def test_the_vector_of_a_pid_is_not_that_of_its_earlier_text(client: SearchClient) -> None:
    """Of rows with the same pid the last one counts; another passage keeps the vector it came with.

    A reject has the row's number.
    """
    first, second = ([*[0.0] * n, 1.0, *[0.0] * (63 - n)] for n in range(2))
    rows = [Passage("3", "rome"), Passage("4", "rome"), Passage("4", "oslo"), Passage("5", "bonn")]
    report = upsert_with_vectors(client, rows, {"3": first, "4": second, "5": [0.0] * 64})
    assert (2, 1, 1) == (report.written, report.superseded, report.rejected)
    assert 4 == report.rejects[0].line
    found = client.similar(vector=first, limit=1, with_vectors=True)
    assert [("3", first)] == [(hit.pid, [*map(float, hit.vector or ())]) for hit in found]


def test_a_failed_opening_is_tried_again(client: SearchClient) -> None:
    """Callers that wait for it get its error; a closed client is opened again."""
    clients = LoopClients(client)

    async def use() -> None:
        first = await clients.client()
        await clients.close()
        await clients.close()
        assert first is not await clients.client()
        assert "1" == (await (await clients.client()).search("london", limit=1))[0].pid

    asyncio.run(use())
    drop_collection(client.store, client.collection)

    async def fail() -> None:
        for _ in range(2):
            with pytest.raises(MsmarcoQdrantError):
                await (await clients.client()).search("london")

    asyncio.run(fail())
    with pytest.raises(CollectionNotFoundError):
        client.search("london")


def test_mmr_of_no_hits(client: SearchClient) -> None:
    """Nothing to select is nothing."""
    assert [] == select_by_mmr([], [1.0], 3, 0.5)
    hits = client.search("london", with_vectors=True)
    assert 2 == len(select_by_mmr(hits, client.encoder.encode_queries(["london"])[0], 9, 0.5))
