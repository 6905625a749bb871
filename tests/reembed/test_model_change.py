"""Changes of the model as this family has seen them, with models loaded from disk.

v2 to v3 of the same shape, 768 to 384, and from cosine to dot product: a client that was opened
before goes on searching, and what it finds is what sentence-transformers itself computes of the
model that the collection has by then.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import ReembedProgress
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.encoding import EncoderOptions, load_encoder
from msmarco_qdrant.encoding.catalog import find_published
from msmarco_qdrant.errors import ModelNotFoundError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import prune_collection, reembed_collection, rollback_collection
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store
from tests.engines import new_store
from tests.stand_ins import DOT, SHAPES, SMALL, V2, V3, save_stand_in

CHANGES = [
    ("edge", V2, V3),
    pytest.param("memory", V3, SMALL, marks=pytest.mark.slow),
    pytest.param("loopback", V3, DOT, marks=pytest.mark.slow),
]
EXACT = EncoderOptions(precision="float32")
QUERY = "greater london in square miles"
LIMIT = 5

Answer: TypeAlias = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def texts() -> Mapping[str, str]:
    """The first forty passages of the sample, by pid."""
    with sample_passages() as source:
        lines = Path(source).read_text().splitlines()[:40]
    return dict(line.split("\t") for line in lines)


class Lazy(dict[str, Any]):
    """Values that are computed when they are first used."""

    def __init__(self, compute: Callable[[str], Any]) -> None:
        self._compute = compute

    def __missing__(self, name: str) -> Any:
        return self.setdefault(name, self._compute(name))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, texts: Mapping[str, str]) -> Lazy:
    """The directory of each stand-in, by its published name."""
    folder = tmp_path_factory.mktemp("models")
    return Lazy(lambda name: save_stand_in(folder, name, [QUERY, *texts.values()]))


@pytest.fixture(scope="module")
def own(models: Lazy, texts: Mapping[str, str]) -> Lazy:
    """The answers of the library's own `encode`, by model."""
    from sentence_transformers import SentenceTransformer, util

    def search(name: str) -> Answer:
        model = SentenceTransformer(str(models[name]), device="cpu")
        compare = util.dot_score if name == DOT else util.cos_sim
        scores = compare(model.encode([QUERY]), model.encode([*texts.values()]))[0].tolist()
        best = sorted(zip(texts, scores, strict=True), key=lambda one: -one[1])[:LIMIT]
        return [(pid, pytest.approx(score, rel=1e-4)) for pid, score in best]

    return Lazy(search)


def fill(store: Store, texts: Mapping[str, str], model: Path) -> None:
    """Ingest the passages with a model."""
    rows = [Passage(pid, text) for pid, text in texts.items()]
    ingest_passages(rows, store, model=model, encoder_options=EXACT)


def filled_client(store: Store, texts: Mapping[str, str], model: Path) -> SearchClient:
    """Ingest the passages, and open a client."""
    fill(store, texts, model)
    return SearchClient.open(store, encoder_options=EXACT)


def answer(hits: list[Hit]) -> Answer:
    """Pids and scores."""
    return [(hit.pid, hit.score) for hit in hits]


@pytest.mark.parametrize(("engine", "old", "new"), CHANGES)
def test_a_client_searches_through_the_change_and_back(
    engine: str,
    old: str,
    new: str,
    texts: Mapping[str, str],
    models: Lazy,
    own: Lazy,
    tmp_path: Path,
) -> None:
    """At every stage it answers as the library does with the model of that stage."""
    answers: dict[str, Answer] = {}

    with (
        new_store(engine, tmp_path) as store,
        filled_client(store, texts, models[old]) as client,
    ):

        def search(progress: ReembedProgress) -> None:
            answers[progress.stage] = answer(client.search(QUERY, limit=LIMIT))

        report = reembed_collection(
            store, model=models[new], encoder_options=EXACT, on_progress=search
        )
        before = dict.fromkeys(("copy", "index", "compare", "verify", "swap"), own[old])
        assert {**before, "last pass": own[new]} == answers
        assert ("msmarco__0001", "msmarco__0002") == (report.old, report.new)
        assert (len(texts), len(texts)) == (report.passages, report.copied)
        check_follows(store, new)
        assert SHAPES[new].dimension == client.encoder.info.dimension

        back = rollback_collection(store, encoder_options=EXACT, on_progress=search)
        before = dict.fromkeys(before, own[new])
        assert {**before, "last pass": own[old]} == answers
        assert (0, "msmarco__0001") == (back.copied, back.new)
        check_follows(store, old)

        assert ("msmarco__0002",) == prune_collection(store)
        assert own[old] == answer(client.search(QUERY, limit=LIMIT))


def check_follows(store: Store, name: str) -> None:
    """What the live collection is made of is what was published of the model."""
    spec, encoder_info = store.collection("msmarco").info().spec, store.metadata("msmarco").encoder
    published = find_published(name)
    assert published is not None
    assert (published.dimension, published.similarity) == (spec.dimension, spec.similarity)
    assert (published.dimension, published.similarity) == (
        encoder_info.dimension,
        encoder_info.similarity,
    )


@pytest.mark.slow
def test_an_event_loop_searches_through_the_change(
    texts: Mapping[str, str], models: Lazy, own: Lazy, tmp_path: Path
) -> None:
    """Each answer is of one model; no answer of the old one follows one of the new."""
    old, new = V3, DOT

    async def searched(edge: Store) -> list[Answer]:
        async with await AsyncSearchClient.open(edge, encoder_options=EXACT) as client:
            answers = [answer(await client.search(QUERY, limit=LIMIT))]
            changing = asyncio.create_task(
                asyncio.to_thread(
                    reembed_collection, edge, model=models[new], encoder_options=EXACT
                )
            )
            while not changing.done():
                answers.append(answer(await client.search(QUERY, limit=LIMIT)))
            await changing
            return [*answers, answer(await client.search(QUERY, limit=LIMIT))]

    with new_store("edge", tmp_path) as store:
        fill(store, texts, models[old])
        answers = asyncio.run(searched(store))

    of_old = sum(own[old] == one for one in answers)
    assert [own[old]] * of_old + [own[new]] * (len(answers) - of_old) == answers
    assert own[old] == answers[0]
    assert own[new] == answers[-1]


@pytest.mark.slow
def test_a_model_in_another_directory(
    texts: Mapping[str, str], models: Lazy, own: Lazy, tmp_path: Path
) -> None:
    """A client loads it by its own function; another one fails until the model is back."""
    here, there = tmp_path / "here" / V3, tmp_path / "there" / V3
    shutil.copytree(models[V3], here)
    with new_store("edge", tmp_path) as store:
        plain = filled_client(store, texts, models[V2])
        custom = SearchClient.open(
            store,
            encoder_options=EXACT,
            load_encoder=lambda _: load_encoder(there, precision="float32"),
        )
        reembed_collection(store, model=here, encoder_options=EXACT)
        there.parent.mkdir()
        here.rename(there)

        assert own[V3] == answer(custom.search(QUERY, limit=LIMIT))
        with pytest.raises(ModelNotFoundError, match=f"re-embedded with {here}"):
            plain.search(QUERY)
        there.rename(here)
        assert own[V3] == answer(plain.search(QUERY, limit=LIMIT))
