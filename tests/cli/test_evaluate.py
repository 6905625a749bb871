"""`evaluate`, and the modes and reranking of `search`, as a person or a script uses them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.cli.evaluate_options import run_outputs
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.evaluation import System, read_run
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Connection
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import Outcome, Place, command
from tests.encoding.tiny_cross_encoders import PairRecipe, save_tiny_pairs
from tests.evaluation.collection import PASSAGES
from tests.evaluation.dataset import register
from tests.loopback import LoopbackServer

MODES = ("dense", "bm25", "hybrid")
QUERIES = "q1\tcastle\nq2\triver\nq3\tbridge\nq4\tstreet\n"
# BM25 has q1: a b, q2: c d, q3: g d
QRELS = "q1 0 b 1\nq2 0 c 1\nq3 0 d 1\n"
SAMPLE_QUERIES = (
    "q1\twho sank the unsinkable ship that hit an iceberg\n"
    "q2\twhat is libel\n"
    "q3\thow to plan a budget\n"
    "q4\thow long do cats sleep\n"
)
SAMPLE_QRELS = "q1 0 3 2\nq2 0 1 1\nq3 0 2 1\n"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of a few passages whose model cannot be loaded: only BM25 can search it."""
    place = tmp_path_factory.mktemp("words") / "store"
    ingest_passages(PASSAGES, place, encoder=HashingEncoder(), optimize=False)
    return str(place)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with a tiny cross-encoder."""
    return str(save_tiny_pairs(tmp_path_factory.mktemp("reranker") / "bert", PairRecipe()))


@pytest.fixture
def _files() -> None:
    """Queries and judgments in the current directory."""
    Path("q.tsv").write_text(QUERIES)
    Path("qrels.txt").write_text(QRELS)


@pytest.fixture
def _sample_files() -> None:
    """The same for the sample."""
    Path("q.tsv").write_text(SAMPLE_QUERIES)
    Path("qrels.txt").write_text(SAMPLE_QRELS)


def evaluate(store: str, *arguments: str) -> Outcome:
    """Run the command on the files of the current directory."""
    files = ("--queries", "q.tsv", "--qrels", "qrels.txt")
    return command("evaluate", "--store", store, *files, *arguments)


def by_words(store: str, *arguments: str) -> Outcome:
    """The same, without a model."""
    return evaluate(store, "--mode", "bm25", "--measures", "RR@10 P@1", *arguments)


def figures(done: Outcome) -> dict[str, dict[str, float]]:
    """The means of a JSON document, by run and measure."""
    assert 0 == done.status
    runs = json.loads(done.out)["evaluation"]["runs"]
    return {
        run["name"]: {name: value["mean"] for name, value in run["values"].items()} for run in runs
    }


def options(name: str, values: Sequence[str]) -> list[str]:
    """An option that is given several times."""
    return [word for value in values for word in (name, value)]


def write_run(name: str, **rankings: str) -> None:
    """A run with these passages, named by a letter each, in this order."""
    lines = [
        f"{qid} Q0 {pid} {rank} {10 - rank} x\n"
        for qid, pids in rankings.items()
        for rank, pid in enumerate(pids, 1)
    ]
    Path(name).write_text("".join(lines))


def check_reranked(plain: str, reranked: str, depth: int) -> None:
    """Whether a run holds the best so many of another; of those of equal score it may be any."""
    first, second = read_run(plain), read_run(reranked)
    assert [*first.rankings] == [*second.rankings]
    for qid, ranking in first.rankings.items():
        scores = dict(ranking)
        found = sorted((scores[pid] for pid, _ in second.rankings[qid]), reverse=True)
        assert [score for _, score in ranking[:depth]] == found


# ---- without a model -------------------------------------------------------------------------


@pytest.mark.usefixtures("_files")
def test_bm25_is_measured_without_a_model(words: str) -> None:
    """A table with figures known by hand; progress on standard error; no file."""
    done = by_words(words)

    assert 0 == done.status
    lines = done.out.splitlines()
    assert "judged queries: 3; 1 without judgments left out" == lines[0]
    assert ["bm25", "0.6667", "0.3333", "0.4546", "0.1729"] == lines[3].split()
    assert "searching with bm25: 3 queries\n" == done.err
    assert {"q.tsv", "qrels.txt"} == {path.name for path in Path().iterdir()}


@pytest.mark.usefixtures("_files")
def test_json_is_one_document(words: str) -> None:
    """With everything that the table has, and what was written."""
    done = by_words(words, "--json", "--run", "a.trec", "--report", "r.html")

    found = json.loads(done.out)
    assert ["evaluation", "ann", "topics", "tuning", "runs", "report"] == [*found]
    assert (None, ["a.trec"], "r.html") == (found["ann"], found["runs"], found["report"])
    counts = {"judged": 3, "unjudged": 1, "unasked": 0, "without_relevant": 0}
    assert counts == found["evaluation"]["queries"]
    assert {"judged": 3, "missing": 0} == found["evaluation"]["relevant_passages"]
    assert {"bm25": {"RR@10": pytest.approx(2 / 3), "P@1": pytest.approx(1 / 3)}} == figures(done)
    assert "written" not in done.err


@pytest.mark.slow
@pytest.mark.usefixtures("_files")
def test_s7_missing_passages_are_counted_everywhere(words: str) -> None:
    """In the text, the JSON document and the report."""
    Path("qrels.txt").write_text(QRELS + "q1 0 doc-159 1\n")

    assert "1 of 4 relevant passages are not in the collection" in by_words(words).out
    found = json.loads(by_words(words, "--json", "--report", "r.html").out)
    assert {"judged": 4, "missing": 1} == found["evaluation"]["relevant_passages"]
    assert "1 of 4 relevant passages are not in the collection" in Path("r.html").read_text()


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("q1 0 doc-b 1\n", "none of the 1 relevant passages of the judgments is in the collection"),
        ("q1 0 b 0\n", "qrels.txt must have a grade of 1 or more, got 0 as the highest"),
        ("q9 0 b 1\n", "none of the 4 queries has judgments"),
    ],
)
@pytest.mark.usefixtures("_files")
def test_s7_nothing_to_measure_is_refused(words: str, qrels: str, message: str) -> None:
    """In one line, without figures."""
    Path("qrels.txt").write_text(qrels)
    done = by_words(words)

    assert ("", 1) == (done.out, done.err.count("\n"))
    assert done.status in {1, 2}
    assert message in done.err


@pytest.mark.usefixtures("_files")
def test_saved_run_has_the_same_figures(words: str) -> None:
    """It also has the queries without judgments; a repeated name becomes the path."""
    kept = by_words(words, "--run", "bm25.trec")

    assert 0 == kept.status
    assert "searching with bm25: 4 queries\nwritten: bm25.trec\n" == kept.err
    assert {"q1", "q2", "q3", "q4"} == {*read_run("bm25.trec").rankings}
    Path("folder").mkdir()
    Path("folder/other.trec").write_text(Path("bm25.trec").read_text())
    again = by_words(words, "--compare", "bm25.trec", "--compare", "folder/other.trec", "--json")
    found = figures(again)
    assert ["bm25.trec", "other", "bm25"] == [*found]
    assert found["bm25"] == found["bm25.trec"] == found["other"]


@pytest.mark.usefixtures("_files")
def test_run_is_saved_as_gzip(words: str) -> None:
    """If its name ends in .gz, for one system and for several."""
    by_words(words, "--run", "plain.trec")
    assert 0 == by_words(words, "--run", "kept.trec.gz").status

    assert Path("plain.trec").read_bytes() == gzip.decompress(Path("kept.trec.gz").read_bytes())
    assert read_run("plain.trec").rankings == read_run("kept.trec.gz").rankings
    given = {"kept.trec.gz": "kept.bm25.trec.gz", "kept": "kept.bm25", "a.b.gz": "a.bm25.b.gz"}
    for name, expected in given.items():
        files = run_outputs(Path("x") / name, [System("bm25"), System()])
        assert Path("x") / expected == files["bm25"]


@pytest.mark.slow
@pytest.mark.usefixtures("_files")
def test_run_survives_a_later_failure(words: str) -> None:
    """The report cannot be written; the run is written and the table printed."""
    done = by_words(words, "--run", "kept.trec", "--report", "r" * 250)

    assert 1 == done.status
    assert {"q1", "q2", "q3", "q4"} == {*read_run("kept.trec").rankings}
    assert "judged queries: 3" in done.out
    assert "written: kept.trec\nError: cannot write rrr" in done.err


@pytest.mark.usefixtures("_files")
def test_invalid_pid_of_a_run_is_refused_early(tmp_path: Path) -> None:
    """With the first answer that has one; without a run it is accepted."""
    passages = [*PASSAGES, Passage("a b", "castle castle")]
    place = str(tmp_path / "store")
    ingest_passages(passages, place, encoder=HashingEncoder(), optimize=False)
    done = by_words(place, "--run", "a.trec")

    assert (2, "") == (done.status, done.out)
    assert "searching with bm25: 4 queries\nError: ids in a TREC run must be" in done.err
    assert not Path("a.trec").exists()
    assert 0 == by_words(place).status


@pytest.mark.slow
@pytest.mark.usefixtures("_files")
def test_file_may_have_any_name(words: str) -> None:
    """Bytes that are not UTF-8 are replaced in each output."""
    name = os.fsdecode(b"a\xff.trec")
    write_run(name, q1="ab")
    arguments = ("--compare", name, "--run", os.fsdecode(b"b\xff.trec"), "--report", "r.html")
    as_text = by_words(words, *arguments)
    as_json = by_words(words, *arguments, "--json")

    assert "a\ufffd  " in as_text.out
    assert "written: b\ufffd.trec\n" in as_text.err
    assert ["a\ufffd", "bm25"] == [*figures(as_json)]
    assert ["b\ufffd.trec"] == json.loads(as_json.out)["runs"]
    assert "--compare &#39;a\ufffd.trec&#39;" in Path("r.html").read_text()


@pytest.mark.usefixtures("_files")
def test_report_is_one_file(words: str) -> None:
    """It has figures, plots, queries, passages and the command."""
    done = by_words(words, "--report", "r.html")

    assert (0, True) == (done.status, done.err.endswith("written: r.html\n"))
    page = Path("r.html").read_text()
    for shown in ("<svg", "castle garden", "0.6667", "costless-64", f"msmarco in {words}"):
        assert shown in page
    assert (
        f"<dd>msmarco-qdrant evaluate --store {words} --queries q.tsv --qrels qrels.txt --mode bm25"
        " --measures &#39;RR@10 P@1&#39; --report r.html</dd>"
    ) in page


@pytest.mark.usefixtures("_files")
def test_candidates_are_ranked(words: str, caplog: pytest.LogCaptureFixture) -> None:
    """They are the baseline under their file's name; a warning counts missing ones."""
    write_run("first.trec", q1="cab", q3="dgx")
    done = by_words(words, "--candidates", "first.trec", "--json", "--run", "out.trec")

    found = figures(done)
    assert {"first": 4 / 9, "bm25": 1 / 3} == pytest.approx(
        {name: values["RR@10"] for name, values in found.items()}
    )
    assert ["abc", "gd"] == [
        "".join(pid for pid, _ in ranking) for ranking in read_run("out.trec").rankings.values()
    ]
    (warning,) = (one for one in caplog.messages if "candidates" in one)
    assert "1 of 6 candidates are not in the collection 'msmarco' and are left out" == warning


def test_dataset_has_queries_and_judgments(words: str, library: Any, tmp_path: Path) -> None:
    """One by a name of `ir_datasets`; an unknown one is refused."""
    register(library, tmp_path, "local/words", queries_tsv=QUERIES, qrels_trec=QRELS)
    given = ("evaluate", "--store", words, "--mode", "bm25", "--measures", "RR@10", "--json")
    done = command(*given, "--dataset", "local/words")

    assert {"bm25": {"RR@10": pytest.approx(2 / 3)}} == figures(done)
    unknown = command(*given, "--dataset", "local/word")
    assert 2 == unknown.status
    assert "did you mean 'local/words'?" in unknown.err


@pytest.mark.usefixtures("_files")
def test_key_and_password_are_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither in a report nor in an error; the server's address is."""
    monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", "SESAME")
    key = Connection(api_key="SESAME")
    with LoopbackServer(api_key="SESAME") as server:
        ingest_passages(PASSAGES, server.url, encoder=HashingEncoder(), connection=key)
        done = by_words(server.url, "--report", str(tmp_path / "r.html"))

    page = (tmp_path / "r.html").read_text()
    assert 0 == done.status
    assert f"--store {server.url} " in page
    assert "SESAME" not in page + done.out + done.err

    refused = by_words("http://me:SESAME@127.0.0.1:1")
    assert (2, "") == (refused.status, refused.out)
    assert "must be only a host, a port and a path" in refused.err
    assert "SESAME" not in refused.err


# ---- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--qrels none.txt", 1, "no such file: none.txt"),
        ("--queries none.tsv", 1, "no such file: none.tsv"),
        ("--queries qrels.txt --qrels q.tsv", 1, "these look like judgments, which --qrels takes"),
        ("--qrels others.txt", 2, "pass the qrels of these queries"),
        ("--measures mrr", 2, "measure 'mrr' is unknown; examples: nDCG@10, RR@10"),
        ("--measures R@20000", 2, "measure 'R@20000' needs 20,000 hits per query"),
        ("--queries spaces.tsv --run a.trec", 2, "without white space, got 'q 1'"),
        ("--compare bad.trec", 1, "bad.trec:1: expected 6 columns, qid Q0 pid rank score tag"),
        ("--candidates none.trec", 1, "no such file: none.trec"),
        ("--candidates xy.trec", 2, "none of the 2 candidates is in the collection 'msmarco'"),
        ("--report .", 2, "Invalid value for '--report'"),
        ("--report q.tsv", 2, "--report q.tsv is also an input; pass another file"),
        ("--run qrels.txt", 2, "--run qrels.txt is also an input"),
        ("--compare xy.trec --run xy.trec", 2, "--run xy.trec is also an input"),
        ("--run a.trec --report a.trec", 2, "--report a.trec is also a file of --run"),
        ("--compare xy.trec --compare xy.trec", 2, "each run needs its own name, got xy.trec, xy"),
        ("--report nowhere/r.html", 1, "cannot write nowhere/r.html: pass --report with a"),
        ("--store nowhere", 1, "nowhere"),
        ("--store :memory:", 2, "a store in memory ends with the command"),
        ("--collection other", 1, "other"),
    ],
)
@pytest.mark.usefixtures("_files")
def test_error_is_one_line(words: str, arguments: str, status: int, message: str) -> None:
    """Nothing is printed as a result and nothing written."""
    Path("others.txt").write_text("x1 0 a 1\n")
    Path("bad.trec").write_text("q1 Q0 a 1 0.5\n")
    write_run("xy.trec", q1="xy")
    Path("spaces.tsv").write_text(QUERIES + "q 1\tcastle\n")
    before = sorted(Path().iterdir())

    done = by_words(words, *arguments.split())

    assert (status, "") == (done.status, done.out)
    (error,) = (line for line in done.err.splitlines() if line.startswith("Error: "))
    assert message in error
    assert before == sorted(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--qrels qrels.txt", "pass --queries FILE (and --qrels FILE), or --dataset NAME"),
        ("--queries q.tsv --dataset x", "pass --queries FILE (and --qrels FILE), or --dataset"),
        ("--dataset x --qrels qrels.txt", "--dataset has its own judgments"),
        ("--queries q.tsv", "pass --qrels FILE to measure answers, or --ann for the index"),
        ("--queries q.tsv --ann --limit 5", "--limit needs --qrels or --dataset"),
        ("--queries q.tsv --ann --mode bm25", "--mode needs --qrels or --dataset"),
        ("--queries q.tsv --ann --run a", "--run needs --qrels or --dataset"),
        ("JUDGED --rerank-depth 5", "--rerank-depth needs --reranker"),
        ("JUDGED --fusion rrf", "--fusion needs --mode hybrid"),
        ("JUDGED --save", "--save needs --tune"),
        ("JUDGED --tune --mode bm25", "--mode needs measured runs, not --tune"),
        ("JUDGED --tune --ann", "pass either --tune or --ann, not both"),
        ("--queries q.tsv --ann --per-query", "--per-query needs --qrels or --dataset"),
        ("JUDGED --mode bm25 --dense-weight 0.5", "--dense-weight needs --mode hybrid"),
        ("JUDGED --candidates c --exact", "--exact needs searches without --candidates"),
        ("JUDGED --candidates c --limit 5", "--limit needs searches without --candidates"),
        (
            "JUDGED --candidates c --reranker x --rerank-depth 5",
            "--rerank-depth needs searches",
        ),
        ("JUDGED --mode sparse", "Invalid value for '--mode'"),
        ("JUDGED --limit 0", "Invalid value for '--limit'"),
    ],
)
def test_options_without_effect_are_refused(arguments: str, message: str) -> None:
    """The message names what they need; nothing is read."""
    judged = "--queries q.tsv --qrels qrels.txt"
    done = command("evaluate", *arguments.replace("JUDGED", judged).split())

    assert (2, "") == (done.status, done.out)
    assert f"Error: {message}" in done.err
    assert [] == [*Path().iterdir()]


@pytest.mark.parametrize("name", ["ir_measures", "scipy", "jinja2", "matplotlib"])
@pytest.mark.usefixtures("_files")
def test_missing_extra_is_named(words: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With the command that installs it; there is no report."""
    monkeypatch.setitem(sys.modules, name, None)  # the import system's own "not installed"
    done = by_words(words, "--report", "r.html")

    assert (2, "") == (done.status, done.out)
    assert "needs the extra 'eval': pip install 'msmarco-qdrant[eval]'" in done.err
    assert not Path("r.html").exists()


@pytest.mark.usefixtures("_files")
def test_vectors_need_the_model(words: str) -> None:
    """So does the index."""
    for arguments in (("--mode", "bm25", "--mode", "dense"), ("--mode", "bm25", "--ann")):
        done = evaluate(words, *arguments)

        assert (1, "") == (done.status, done.out)
        assert "costless-64" in done.err


# ---- with the packaged model -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("_sample_files")
def test_every_mode_is_measured_with_and_without_reranking(place: Place, reranker: str) -> None:
    """Kept runs measure the same when read again; a cross-encoder alone ranks candidates."""
    modes = options("--mode", MODES)
    rerank = ("--reranker", reranker, "--rerank-depth", "7")
    done = evaluate(place.store, *modes, *rerank, "--run", "kept.trec", "--json")

    found = figures(done)
    systems = [*MODES, *(f"{mode} reranked" for mode in MODES)]
    assert systems == [*found]
    names = [f"kept.{name.replace(' ', '-')}.trec" for name in systems]
    assert names == json.loads(done.out)["runs"]
    assert [f"searching with {name}: 4 queries" for name in systems] == done.err.splitlines()[-6:]
    assert (1.0, 1.0) == (found["dense"]["RR@10"], found["hybrid"]["RR@10"])
    for mode in MODES:
        check_reranked(f"kept.{mode}.trec", f"kept.{mode}-reranked.trec", 7)
    compared = evaluate(place.store, "--mode", "bm25", *options("--compare", names), "--json")
    assert [*found.values()] == [*figures(compared).values()][:-1]
    lines = [f"q1 Q0 {pid} {pid} {-pid} x\n" for pid in range(1, 31)]
    Path("thirty.trec").write_text("".join(lines))
    arguments = ("--candidates", "thirty.trec", "--reranker", reranker, "--run", "out.trec")
    found = figures(evaluate(place.store, *modes, *arguments, "--json"))
    assert ["thirty", *systems] == [*found]
    assert {30} == {len(read_run(f"out.{mode}-reranked.trec").rankings["q1"]) for mode in MODES}
    assert found["dense reranked"] == found["bm25 reranked"] == found["hybrid reranked"]


@pytest.mark.slow
@pytest.mark.usefixtures("_sample_files")
def test_the_index_is_compared(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """With judgments, and without; a warning names a collection without a graph."""
    both = evaluate(place.store, "--ann", "--json")
    given = ("--queries", "q.tsv", "--ann", "--report", "r")
    alone = command("evaluate", "--store", place.store, *given)

    found = json.loads(both.out)
    points = found["ann"]["points"]
    assert ["dense"] == [run["name"] for run in found["evaluation"]["runs"]]
    assert (10, 4) == (found["ann"]["k"], found["ann"]["queries"])
    assert 1.0 == points[-1]["recall"]
    assert alone.out.startswith("queries: 4; exact search: ")
    settings = [f"searching with {p['setting']}, ef {p['ef']}: 4 queries" for p in points]
    expected = ["comparing the index with exact search: 4 queries", *settings, "written: r"]
    assert expected == alone.err.splitlines()[-len(expected) :]
    assert "<h2>Approximate search</h2>" in Path("r").read_text()
    assert "'msmarco' has no index" in caplog.text


# ---- search by other modes -------------------------------------------------------------------


def searched(*arguments: str) -> list[dict[str, Any]]:
    """The hits of a search."""
    done = command("search", *arguments, "--json")
    assert 0 == done.status
    hits: list[dict[str, Any]] = json.loads(done.out)
    return hits


@pytest.mark.slow
@pytest.mark.usefixtures("_sample_files")
def test_options_are_tuned_and_saved(place: Place, tmp_path: Path) -> None:
    """`--save` keeps them in the collection, where `info` shows them."""
    store = str(tmp_path / "store")
    shutil.copytree(place.store, store)
    done = evaluate(store, "--tune", "--measures", "RR@10")
    assert 0 == done.status
    assert "chosen: " in done.out
    assert "saved" not in done.out
    saved = evaluate(store, "--tune", "--save", "--json")
    tuning = json.loads(saved.out)["tuning"]
    assert (True, "nDCG@10", 3) == (tuning["saved"], tuning["measure"], tuning["queries"])
    described = json.loads(command("info", "--store", store, "--json").out)
    defaults = described["collections"][0]["metadata"]["search_defaults"]
    assert tuning["defaults"] == defaults
    assert "tuned by nDCG@10 of 3 queries" == defaults["source"]


@pytest.mark.usefixtures("_files")
def test_topics_queries_and_another_collection_are_shown(words: str, tmp_path: Path) -> None:
    """In tables after the measures; `--json` has the topics."""
    Path("topics.tsv").write_text("q1\tcastles\nq2\twater\nq3\twater\n")
    other = str(tmp_path / "store")
    ingest_passages(PASSAGES, other, encoder=HashingEncoder(), optimize=False)
    shown = ("--topics", "topics.tsv", "--per-query", "--against-store", other)
    done = by_words(words, *shown, "--exclude-self")
    assert 0 == done.status
    assert "bm25 in the other store" in done.out
    assert "RR@10 by topic:" in done.out
    assert "RR@10 by query:" in done.out
    topics = json.loads(by_words(words, *shown, "--json").out)["topics"]
    assert [("water", 2), ("castles", 1)] == [(one["topic"], one["queries"]) for one in topics]


@pytest.mark.usefixtures("_files")
def test_a_collection_is_not_compared_with_itself(words: str) -> None:
    """The message asks for another one."""
    done = by_words(words, "--against", "msmarco")
    assert (2, "") == (done.status, done.out)
    assert "--against must be another collection than msmarco" in done.err


@pytest.mark.slow
@pytest.mark.usefixtures("_sample_files")
def test_search_reranks(place: Place, reranker: str) -> None:
    """Hits and runs, as deep as the reranking goes."""
    one = ("how to plan a budget", "--store", place.store, "--mode", "hybrid", "--limit", "9")
    plain_hits, hits = searched(*one), searched(*one, "--reranker", reranker, "--rerank-depth", "9")
    assert {hit["pid"] for hit in plain_hits} == {hit["pid"] for hit in hits}
    assert sorted((hit["score"] for hit in hits), reverse=True) == [hit["score"] for hit in hits]
    assert [*range(1, len(hits) + 1)] == [hit["rank"] for hit in hits]
    ask = ("search", "--store", place.store, "--queries", "q.tsv", "--mode", "hybrid")
    plain = command(*ask, "--run", "plain.trec", "--limit", "12")
    again = command(*ask, "--run", "again.trec", "--reranker", reranker, "--rerank-depth", "6")

    assert ("answers for 4 queries written to plain.trec\n", 0) == (plain.out, plain.status)
    assert ("answers for 4 queries written to again.trec\n", 0) == (again.out, again.status)
    check_reranked("plain.trec", "again.trec", 6)


def test_group_by_returns_one_passage_per_value(filled: str) -> None:
    """Passages without the field are left out; BM25 loads no model."""
    ask = ("city france", "--store", filled, "--mode", "bm25")

    assert 3 == len(searched(*ask))
    assert ["fr", "en"] == [hit["meta"]["lang"] for hit in searched(*ask, "--group-by", "lang")]
