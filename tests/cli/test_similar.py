"""`similar`, and the options of `search` for what hits contain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from msmarco_qdrant.collection.passages import list_passages
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import Place, command


def hits(*arguments: str) -> list[dict[str, Any]]:
    """The hits that a command prints as JSON."""
    done = command(*arguments, "--json")
    assert (0, "") == (done.status, done.err)
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_similar_passages_are_printed(filled: str) -> None:
    """As text and as JSON, without a model, which this collection's cannot be loaded."""
    first, second, *_ = (passage.pid for passage in list_passages(filled))
    found = hits("similar", first, "--store", filled)
    assert 4 == len(found)
    assert first not in {hit["pid"] for hit in found}
    text = command("similar", first, "--store", filled, "-n", "1").out
    assert text.startswith(f"  1  {found[0]['score']:.4f}  {found[0]['pid']}\n")
    both = hits("similar", first, second, "--store", filled, "--diversity", "0.5")
    assert {hit["pid"] for hit in found} - {second} == {hit["pid"] for hit in both}
    away = hits("similar", first, "--negative", second, "--store", filled, "--offset", "1")
    assert [2, 3] == [hit["rank"] for hit in away]
    page = command("similar", first, "--store", filled, "-n", "2", "--offset", "0")
    cursor = page.err.removeprefix("next page: --cursor ").strip()
    rest = hits("similar", first, "--store", filled, "--cursor", cursor)
    assert found[2:] == rest
    bare = hits(
        *("similar", first, "--store", filled, "--filter", "lang=en", "--with-meta", "lang"),
        *("--without-text", "--with-vectors"),
    )
    for hit in bare:
        assert ("", {"lang": "en"}, 64) == (hit["text"], hit["meta"], len(hit["vector"]))


def test_one_ranking_of_several_collections(filled: str) -> None:
    """Each hit with its collection, as text and as JSON."""
    rows = [("b1", "the oldest bridge of london"), ("b2", "a castle")]
    ingest_passages(rows, filled, encoder=HashingEncoder(), collection="books", optimize=False)
    arguments = ("search", "bridge london", "--store", filled, "--mode", "bm25", "--also", "books")
    found = hits(*arguments)
    assert {"msmarco", "books"} >= {hit["collection"] for hit in found}
    assert "b1" in {hit["pid"] for hit in found if hit["collection"] == "books"}
    by_rank = hits(*arguments, "--merge", "rrf")
    assert {1 / 61} >= {hit["score"] for hit in by_rank[:1]}
    text = command(*arguments, "--without-text").out
    assert f"{found[0]['score']:.4f}  {found[0]['collection']}  {found[0]['pid']}" in text
    own = next(hit["pid"] for hit in found if hit["collection"] == "msmarco")
    near = hits("similar", own, "--store", filled, "--also", "books", "-n", "50")
    assert {"msmarco", "books"} == {hit["collection"] for hit in near}
    assert own not in {hit["pid"] for hit in near if hit["collection"] == "msmarco"}
    done = command(*arguments, "--also", "none")
    assert (1, "") == (done.status, done.out)
    assert "no collection 'none'" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["similar"], "pass a PID or more, or --text TEXT"),
        (["similar", "nobody"], "no passage 'nobody' in collection 'msmarco'"),
        (["similar", "1", "--model", "m"], "--model needs --text"),
        (["similar", "1", "--with-vectors"], "--with-vectors needs --json"),
        (["similar", "1", "--with-meta", "a", "--without-meta"], "either --with-meta or"),
        (["similar", "1", "--merge", "rrf"], "--merge needs --also"),
        (["similar", "1", "--diversity", "2"], "not in the range 0<=x<=1"),
        (["search", "x", "--with-vectors"], "--with-vectors needs --json"),
        (["search", "--queries", "q", "--run", "r", "--snippets", "1"], "--snippets needs QUERY"),
        (["search", "--queries", "q", "--run", "r", "--diversity", "1"], "--diversity needs QUERY"),
        (["search", "--queries", "q", "--run", "r", "--also", "a"], "--also needs QUERY"),
        (["search", "x", "--merge", "rrf"], "--merge needs --also"),
        (["search", "x", "--also", "msmarco"], "collections must differ, got ['msmarco', 'msmarco"),
        (["search", "x", "--rerank-depth", "auto"], "--rerank-depth needs --reranker"),
        (["search", "x", "--rerank-depth", "all"], "'all' is not a valid integer"),
        (["search", "x", "--rerank-depth", "0"], "0 is not in the range 1<=x<=10000"),
    ],
)
def test_what_is_refused(filled: str, arguments: list[str], message: str) -> None:
    """With what is missing."""
    done = command(*arguments, "--store", filled)
    assert done.status in {1, 2}
    assert message in done.err


@pytest.mark.slow
def test_a_search_prints_what_is_wanted(place: Place) -> None:
    """With a real model: snippets, diverse hits, and a text as an example."""
    query = ("search", "how does a volcano erupt", "--store", place.store, "-n", "5")
    plain = hits(*query)
    short = hits(*query, "--snippets", "1", "--without-text", "--without-meta")
    assert [hit["pid"] for hit in plain] == [hit["pid"] for hit in short]
    for hit, whole in zip(short, plain, strict=True):
        assert ("", {}) == (hit["text"], hit["meta"])
        assert hit["snippets"][0] in whole["text"]
    assert short[0]["snippets"][0] in " ".join(command(*query, "--snippets", "1").out.split())
    assert [hit["pid"] for hit in plain] != [
        hit["pid"] for hit in hits(*query, "--diversity", "0.9")
    ]
    same = hits("similar", "--text", plain[0]["text"], "--store", place.store, "-n", "1")
    assert plain[0]["pid"] == same[0]["pid"]
