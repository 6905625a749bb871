"""Changes of the model with models loaded from disk.

From v2 to v3 of the same shape, from 768 to 384, and from cosine to dot product. A client that was
opened before finds what sentence-transformers computes with the collection's current model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import ReembedProgress
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.encoding import EncoderOptions
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.reembed.api import prune_collection, reembed_collection, rollback_collection
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store
from tests.engines import new_store
from tests.stand_ins import DOT, SHAPES, SMALL, V2, V3, save_stand_in

CHANGES = [
    ("memory", V2, V3),
    ("edge", V3, SMALL),
    ("loopback", V3, DOT),
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


def filled_client(store: Store, texts: Mapping[str, str], model: Path) -> SearchClient:
    """Ingest the passages, and open a client."""
    rows = [Passage(pid, text) for pid, text in texts.items()]
    ingest_passages(rows, store, model=model, encoder_options=EXACT)
    return SearchClient.open(store, encoder_options=EXACT)


def answer(hits: list[Hit]) -> Answer:
    """Pids and scores."""
    return [(hit.pid, hit.score) for hit in hits]


@pytest.mark.slow
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
        assert SHAPES[new].dimension == client.encoder.info.dimension
        assert SHAPES[new].dimension == store.collection("msmarco").info().spec.dimension

        back = rollback_collection(store, encoder_options=EXACT, on_progress=search)
        before = dict.fromkeys(before, own[new])
        assert {**before, "last pass": own[old]} == answers
        assert (0, "msmarco__0001") == (back.copied, back.new)

        assert ("msmarco__0002",) == prune_collection(store)
        assert own[old] == answer(client.search(QUERY, limit=LIMIT))
