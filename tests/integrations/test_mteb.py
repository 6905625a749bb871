"""Tasks of MTEB, made of local data, by its own evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("mteb")

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol

from msmarco_qdrant import count_passages, open_store
from msmarco_qdrant.cli.app import main
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.integrations.mteb import MsmarcoEncoder, MsmarcoSearch, local_task
from msmarco_qdrant.integrations.mteb.models import collection_name
from msmarco_qdrant.integrations.mteb.tasks import run_tasks
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from tests.docs.pages import blocks, output_after, page
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.engines import new_store

CORPUS = {
    "id": ["d1", "d2", "d3", "d4"],
    "title": ["London", "", "Berlin", "Whales"],
    "text": [
        "a big city on the thames",
        "paris is a city in france",
        "a city on the spree in germany",
        "they sing in the deep sea",
    ],
}
QUERIES = {"id": ["q1", "q2", "q3"], "text": ["city in france", "whales sing", "london thames"]}
JUDGED = {"q1": {"d2": 1}, "q2": {"d4": 1}, "q3": {"d1": 1}}


class LocalTask(AbsTaskRetrieval):
    """A retrieval task of four documents."""

    metadata = TaskMetadata(
        name="LocalCities",
        dataset={"path": "local", "revision": "1"},
        description="Cities and whales.",
        type="Retrieval",
        modalities=["text"],
        category="t2t",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )
    ranked: ClassVar[Mapping[str, list[str]] | None] = None

    def load_data(self, **_options: Any) -> None:
        """Make the data."""
        split = {
            "corpus": Dataset.from_dict(CORPUS),
            "queries": Dataset.from_dict(QUERIES),
            "relevant_docs": {query: dict(judged) for query, judged in JUDGED.items()},
            "top_ranked": self.ranked,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


class LocalReranking(LocalTask):
    """The same with given candidates."""

    ranked: ClassVar = {"q1": ["d1", "d2"], "q2": ["d3", "d4"], "q3": ["d1"]}


@pytest.fixture(params=["edge", "memory", "loopback"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each engine in turn."""
    with new_store(request.param, tmp_path) as made:
        yield made


def scores_of(model: Any, task: AbsTaskRetrieval) -> dict[str, float]:
    """The scores of a model in a task."""
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    (scores,) = result.task_results[0].scores["test"]
    return {name: scores[name] for name in ("ndcg_at_10", "recall_at_1", "mrr_at_10")}


def test_a_task_through_a_store_scores_as_mteb_s_exact_search(store: Store) -> None:
    """In the mode that compares vectors; the corpus becomes a collection that stays."""
    encoder = HashingEncoder()
    model, exact = MsmarcoSearch(store, encoder), MsmarcoEncoder(encoder)
    assert isinstance(model, SearchProtocol)
    assert isinstance(exact, EncoderProtocol)
    found = scores_of(model, LocalTask())
    assert pytest.approx(scores_of(exact, LocalTask())) == found
    name = collection_name("LocalCities", "default", "test")
    assert 4 == count_passages(store, collection=name)
    assert found == scores_of(model, LocalTask())


@pytest.mark.parametrize("mode", ["bm25", "hybrid"])
def test_other_modes_find_the_judged_documents(mode: Any) -> None:
    """Each query has words that only its document has."""
    with open_store(":memory:", create=True) as store:
        model = MsmarcoSearch(store, HashingEncoder(), mode=mode)
        assert 1.0 == scores_of(model, LocalTask())["recall_at_1"]


def test_a_reranker_scores_the_best_hits_again() -> None:
    """And its name is part of what MTEB stores with results."""
    with open_store(":memory:", create=True) as store:
        model = MsmarcoSearch(
            store, HashingEncoder(), reranker=WordOverlapReranker(), rerank_depth=3
        )
        assert 1.0 == scores_of(model, LocalTask())["recall_at_1"]
        assert 3 == model.mteb_model_meta.experiment_kwargs["rerank_depth"]


def test_given_candidates_are_ranked() -> None:
    """As reranking tasks ask."""
    with open_store(":memory:", create=True) as store:
        model = MsmarcoSearch(store, HashingEncoder())
        assert 1.0 == scores_of(model, LocalReranking())["mrr_at_10"]


def test_results_of_other_options_are_stored_apart() -> None:
    """By the name of the experiment; the model is named by its fingerprint, too."""
    with open_store(":memory:", create=True) as store:
        metas = [
            MsmarcoSearch(store, HashingEncoder(), **options).mteb_model_meta
            for options in ({}, {"mode": "bm25"}, {"exact": True})
        ]
    assert 3 == len({str(meta.experiment_kwargs) for meta in metas})
    assert {("msmarco-qdrant/costless-64", HashingEncoder().info.fingerprint[:40])} == {
        (meta.name, meta.revision) for meta in metas
    }


def test_names_of_collections_are_valid_and_differ() -> None:
    """Also those of long or odd tasks."""
    names = [
        collection_name(task, subset, "test")
        for task in ("A", "A B", "A_B", "x" * 90, "x" * 91, "Ä/ö")
        for subset in ("default", "en-de")
    ]
    assert len(names) == len({*names})
    assert all(len(name) <= 63 and name.startswith("mteb-") for name in names)


def test_a_depth_without_a_reranker_is_refused() -> None:
    """It has no effect."""
    with (
        open_store(":memory:", create=True) as store,
        pytest.raises(UsageError, match="rerank_depth needs a reranker"),
    ):
        MsmarcoSearch(store, HashingEncoder(), rerank_depth=10)


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, Path]:
    """The task in files of BEIR's form, with a row that is not a passage."""
    rows = [
        {"_id": pid, "title": title, "text": text}
        for pid, title, text in zip(*CORPUS.values(), strict=True)
    ]
    corpus = [*rows, {"_id": "d5", "title": "", "text": ""}]
    queries = [{"_id": query, "text": text} for query, text in zip(*QUERIES.values(), strict=True)]
    judged = [f"{query}\t{pid}\t1" for query, pids in JUDGED.items() for pid in pids]
    contents = {
        "corpus": "\n".join(map(json.dumps, corpus)),
        "queries": "\n".join(map(json.dumps, [*queries, {"_id": "q4", "text": "not judged"}])),
        "qrels": "\n".join(["query-id\tcorpus-id\tscore", *judged]),
    }
    paths = {name: tmp_path / f"{name}.txt" for name in contents}
    for name, path in paths.items():
        path.write_text(contents[name] + "\n")
    return paths


def test_files_make_a_task(files: Mapping[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    """Of the judged queries, with titles; rows left out are counted."""
    task = local_task(files["corpus"], files["queries"], files["qrels"], name="Cities")
    with open_store(":memory:", create=True) as store:
        assert 1.0 == scores_of(MsmarcoSearch(store, HashingEncoder()), task)["recall_at_1"]
        assert 4 == count_passages(store, collection="mteb-Cities-default-test")
    assert "1 rows of the corpus are left out" in caplog.text


class TaskWithout(LocalTask):
    """The task with a document that has no text."""

    def __init__(self, empty: str) -> None:
        super().__init__()
        self._empty = empty

    def load_data(self, **options: Any) -> None:
        """Make the data."""
        super().load_data(**options)
        texts = {**dict(zip(CORPUS["id"], CORPUS["text"], strict=True)), self._empty: ""}
        corpus = {"id": [*texts], "title": [""] * len(texts), "text": [*texts.values()]}
        self.dataset["default"]["test"]["corpus"] = Dataset.from_dict(corpus)


def test_a_document_without_text_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """As data sets of BEIR have them: it is counted, also by a second run, and ends none."""
    name = collection_name("LocalCities", "default", "test")
    with open_store(":memory:", create=True) as store:
        model = MsmarcoSearch(store, HashingEncoder())
        for empty, count in (("d5", 4), ("d5", 4), ("d4", 3)):
            caplog.clear()
            scores_of(model, TaskWithout(empty))
            assert count == count_passages(store, collection=name)
            assert "1 rows were rejected" in caplog.text


def test_the_result_of_other_files_is_refused(files: Mapping[str, Path], tmp_path: Path) -> None:
    """MTEB would return it for every task of that name."""
    given = files["corpus"], files["queries"], files["qrels"]
    with open_store(":memory:", create=True) as store:
        model = MsmarcoSearch(store, HashingEncoder())
        for _ in range(2):  # the second time from the folder
            (own,) = run_tasks(model, [local_task(*given)], tmp_path / "results")
            assert 1.0 == own["scores"]["recall_at_1"]
        files["qrels"].write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
        with pytest.raises(UsageError, match="got a result of another 'Local'"):
            run_tasks(model, [local_task(*given)], tmp_path / "results")
        (other,) = run_tasks(model, [local_task(*given, name="Other")], tmp_path / "results")
        assert 0.0 == other["scores"]["recall_at_1"]


def test_data_that_cannot_be_downloaded_end_it_in_a_line() -> None:
    """With the reason of the network, instead of a traceback."""

    class Absent(LocalTask):
        def load_data(self, **_options: Any) -> None:
            raise ConnectionError("no route to the hub")

    with open_store(":memory:", create=True) as store:
        model = MsmarcoSearch(store, HashingEncoder())
        with pytest.raises(SourceError, match="no route to the hub"):
            run_tasks(model, [Absent()])


def test_files_that_make_no_task_are_refused(files: Mapping[str, Path], tmp_path: Path) -> None:
    """With the reason."""
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.write_text("")
    other.write_text(json.dumps({"_id": "q9", "text": "city"}) + "\n")
    for changed, reason in (
        ({"queries": other}, "queries must have judgments"),
        ({"qrels": empty}, "no judgments"),
        ({"qrels": files["queries"]}, "queries.txt"),
        ({"corpus": tmp_path / "none"}, "none"),
        ({"corpus": empty}, "empty"),
    ):
        given = {**files, **changed}
        with pytest.raises(SourceError, match=reason):
            local_task(given["corpus"], given["queries"], given["qrels"])
    with pytest.raises(UsageError, match="name must be a non-empty string, got ' '"):
        local_task(files["corpus"], files["queries"], files["qrels"], name=" ")


@pytest.mark.slow
def test_one_command_runs_a_task_and_stores_its_result(
    files: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second time from the folder of results."""
    model = save_tiny(tmp_path, Recipe())
    given = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    given += ["--store", str(tmp_path / "store"), "--model", str(model), "--name", "Cities"]
    command = ["mteb", *given, "--mode", "bm25", "--results", str(tmp_path / "results"), "--json"]
    shown = []
    for _ in range(2):
        assert 0 == main(command)
        shown.append(json.loads(capsys.readouterr().out))
    assert shown[0] == shown[1]
    assert 1.0 == shown[0]["tasks"][0]["scores"]["recall_at_1"]
    assert 0 == main(["mteb", *given, "--mode", "bm25"])
    assert "Cities (default, test): ndcg_at_10 1.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "pass either TASK, or --corpus"),
        (["NFCorpus", "--corpus", "a", "--queries", "b", "--qrels", "c"], "not both"),
        (["--corpus", "a"], "needs all of --corpus"),
        (["NFCorpus", "--name", "x"], "--name needs --corpus"),
        (["NFCorpus", "--rerank-depth", "9"], "--rerank-depth needs --reranker"),
        (["NoSuchTask"], "got 'NoSuchTask'"),
        (["STS12"], "must be of retrieval or reranking, got 'STS12'"),
    ],
)
def test_wrong_usage_is_refused(
    given: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a model is loaded."""
    assert 2 == main(["mteb", *given])
    assert reason in capsys.readouterr().err


def test_the_program_of_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """Its Python block."""
    text = page("mteb.md")
    (block,) = blocks(text, "python")
    exec(block, {"__name__": "__main__"})  # noqa: S102  # the page's own code
    assert output_after(text, block) == capsys.readouterr().out
