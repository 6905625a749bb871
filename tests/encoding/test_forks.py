"""Models in forked processes: an error instead of a wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import pytest

from msmarco_qdrant import AsyncSearchClient, SearchClient, encode_corpus, ingest_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import load_encoder, load_reranker
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.protocols import Reranker
from msmarco_qdrant.stores import Store, open_store
from tests.encoding.conftest import Tiny, TinyPairs
from tests.encoding.tiny_cross_encoders import PairRecipe
from tests.encoding.tiny_models import Recipe
from tests.forks import in_child

PASSAGES = [Passage("1", "london is a city"), Passage("2", "water boils in a kettle")]
REFUSAL = (
    "EncodingError: a model cannot run in a process that was forked after its parent used "
    "torch or loaded a model: start this process by spawn or forkserver "
    "(multiprocessing.get_context('spawn')) instead of fork, or load models only after forking"
)


class Parent:
    """A process that has searched."""

    def __init__(self, model: Path, pairs: Path, store: Store, folder: Path) -> None:
        self.model, self.pairs, self.store, self.folder = model, pairs, store, folder
        self.encoder: BiEncoder = load_encoder(model, device="cpu")
        self.reranker: Reranker = load_reranker(pairs, device="cpu")
        ingest_passages(PASSAGES, store, collection="films", encoder=self.encoder)
        self.client = SearchClient(store, "films", self.encoder, reranker=self.reranker)
        self.client.search("london city", rerank_depth=10)

    def new_store(self) -> Store:
        """Create a store in this process."""
        return open_store(":memory:", create=True)


Use: TypeAlias = Callable[[Parent], object]


async def _search(parent: Parent) -> object:
    async with await AsyncSearchClient.open(
        parent.store, collection="films", encoder=parent.encoder
    ) as client:
        return await client.search("london")


USES: dict[str, Use] = {
    "load": lambda p: load_encoder(p.model),
    "load a reranker": lambda p: load_reranker(p.pairs),
    "a cached query": lambda p: p.encoder.encode_queries(["london city"]),
    "passages": lambda p: [*p.encoder.encode_passages(p.encoder.tokenizer(["london"]))],
    "warm up": lambda p: p.encoder.warm_up(),
    "rerank": lambda p: p.reranker.scores([("london", "paris")]),
    "warm up a reranker": lambda p: p.reranker.warm_up(),
    "the parent's client": lambda p: p.client.search("london"),
    "the parent's client, warm up": lambda p: p.client.warm_up(),
    "ingest": lambda p: ingest_passages(PASSAGES, p.new_store(), encoder=p.encoder),
    "ingest by name": lambda p: ingest_passages(PASSAGES, p.new_store(), model=p.model),
    "encode": lambda p: encode_corpus(PASSAGES, p.folder / "new", model=p.model, workers=0),
}


@pytest.fixture(scope="module")
def parent(tiny: Tiny, tiny_pairs: TinyPairs, tmp_path_factory: pytest.TempPathFactory) -> Parent:
    """This process, once it has searched."""
    folder = tmp_path_factory.mktemp("forks")
    return Parent(
        tiny(Recipe()), tiny_pairs(PairRecipe()), open_store(":memory:", create=True), folder
    )


@pytest.mark.parametrize("name", USES)
def test_c1_a_forked_child_is_refused(parent: Parent, name: str) -> None:
    """Before a model is loaded or called, in one line that names what works."""
    assert REFUSAL in in_child(lambda: USES[name](parent))


def test_c1_the_async_client_of_a_parent_is_refused(parent: Parent) -> None:
    """Its store is the parent's."""
    refusal = in_child(lambda: asyncio.run(_search(parent)))
    assert "is in the memory of the process that created it" in refusal


def test_c1_the_parent_goes_on(parent: Parent) -> None:
    """A refused child changes nothing here."""
    in_child(lambda: USES["load"](parent))
    assert 2 == len(parent.client.search("river"))
    assert 1 == len(parent.reranker.scores([("london", "paris")]))


def test_c1_bm25_needs_no_model(parent: Parent) -> None:
    """A child may search by BM25 in a store of its own."""

    def search() -> list[str]:
        from msmarco_qdrant.testing import HashingEncoder

        with closing(parent.new_store()) as store:
            ingest_passages(PASSAGES, store, collection="films", encoder=HashingEncoder())
            client = SearchClient(store, "films", None)
            return [hit.pid for hit in client.search("kettle", mode="bm25")]

    assert "['2']" == in_child(search)
