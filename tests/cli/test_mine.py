"""`mine` as a command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from msmarco_qdrant.train import read_negatives
from tests.cli.runner import Place, command

QUERIES = "q1\tbig city\nq2\tspy cocktails\nq3\tcity in germany\n"
QRELS = "q1 0 1 2\nq1 0 2 1\nq2 0 007 1\n"
CLICKS = "big  city\t1\t3\nspy\t007\t1\n"


@pytest.fixture(autouse=True)
def files() -> None:
    """Write the input files into the current directory."""
    Path("queries.tsv").write_text(QUERIES)
    Path("qrels.txt").write_text(QRELS)
    Path("pairs.tsv").write_text("q1\t1\n")
    Path("clicks.tsv").write_text(CLICKS)
    Path("others.txt").write_text("q1 0 nobody 1\n")
    Path("full").mkdir()
    Path("full/file").touch()


def test_negatives_are_mined_by_words(filled: str) -> None:
    """Without a model; the report is printed, and the same command prints it again."""
    judged = ("--queries", "queries.tsv", "--qrels", "qrels.txt")
    arguments = ("mine", *judged, "--mode", "bm25", "--out", "out", "--store", filled)
    done = command(*arguments)
    assert (0, "") == (done.status, done.err)
    assert "2 queries mined in " in done.out
    assert "bm25: 1 candidates, 0.5 per query; 2 have fewer than 100" in done.out
    assert "left out: 1 queries without a positive" in done.out
    first, second = read_negatives("out")
    assert ("q1", ("1", "2")) == (first.qid, first.positives)
    assert {"bm25": ("b6c0e8a2-0d7e-4f43-b4d2-7d2f1a8f1d2c",)} == first.negatives
    assert {"bm25": ()} == second.negatives

    again = command(*arguments, "--json")
    report = json.loads(again.out)
    assert (2, 1, {"bm25": 2}) == (report["queries"], report["without_positives"], report["short"])
    assert f"{report['seconds']:.1f} s" in done.out


def test_positives_by_grade_by_pairs_and_by_clicks(filled: str) -> None:
    """A log of clicks also gives the queries, which are written for later commands."""
    usual = ("--mode", "bm25", "--store", filled)
    judged = ("--queries", "queries.tsv", "--qrels", "qrels.txt", "--min-grade", "2")
    assert 0 == command("mine", *judged, "--out", "a", *usual).status
    assert [("1",)] == [one.positives for one in read_negatives("a")]
    pairs = ("--queries", "queries.tsv", "--qrels", "pairs.tsv")
    assert 0 == command("mine", *pairs, "--out", "b", *usual).status
    assert [("1",)] == [one.positives for one in read_negatives("b")]
    clicks = ("--clicks", "clicks.tsv", "--min-count", "2")
    for _ in range(2):
        assert 0 == command("mine", *clicks, "--out", "c", *usual).status
    (mined,) = read_negatives("c")
    assert ("1",) == mined.positives
    assert f"{mined.qid}\tbig city\n" == Path("c/queries.tsv").read_text()


def test_several_collections_are_mined_with_their_models(place: Place, tmp_path: Path) -> None:
    """`--also` names the systems by collection."""
    store = tmp_path / "store"
    shutil.copytree(place.store, store)
    assert (
        0
        == command(
            "ingest",
            place.sample,
            *("--collection", "two", "--store", str(store)),
            *("--model", "all-MiniLM-L6-v2"),
        ).status
    )
    pid, text = Path(place.sample).read_text().splitlines()[0].split("\t")
    Path("one.tsv").write_text(f"q\t{text}\n")
    Path("one.qrels").write_text(f"q 0 {pid} 1\n")
    arguments = f"--queries one.tsv --qrels one.qrels --depth 6 --first-rank 2 --store {store}"
    assert 0 == command("mine", *arguments.split(), "--out", "one").status
    (alone,) = read_negatives("one")
    assert 0 == command("mine", *arguments.split(), "--out", "both", "--also", "two").status
    (both,) = read_negatives("both")

    assert ["all-MiniLM-L6-v2"] == list(alone.negatives)
    assert ["msmarco", "two"] == list(both.negatives)
    assert alone.negatives["all-MiniLM-L6-v2"] == both.negatives["msmarco"]
    assert 5 == len(both.negatives["two"])


@pytest.mark.parametrize("option", ["--out", "--queries", "--qrels"])
def test_urls_are_refused(filled: str, option: str) -> None:
    """Before a folder named "s3:" is made; the URL may have secrets."""
    paths = {"--queries": "queries.tsv", "--qrels": "qrels.txt", "--out": "out"}
    given = {**paths, option: "s3://SESAME/a"}
    done = command("mine", *(word for one in given.items() for word in one), "--store", filled)
    message = f"'{option}': must be a path on this machine, got a URL (s3://...)"
    assert (2, True) == (done.status, message in done.err)
    assert "SESAME" not in done.err
    assert not Path("s3:").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--queries queries.tsv", 2, "pass --queries FILE and --qrels FILE, or --clicks FILE"),
        ("--qrels qrels.txt", 2, "pass --queries FILE and --qrels FILE, or --clicks FILE"),
        ("", 2, "pass --queries FILE and --qrels FILE, or --clicks FILE"),
        ("--clicks clicks.tsv --qrels qrels.txt", 2, "or --clicks FILE"),
        ("--clicks clicks.tsv --min-grade 2", 2, "--min-grade needs --qrels"),
        ("QUERIES --min-count 2", 2, "--min-count needs --clicks"),
        ("QUERIES --depth 5 --first-rank 6", 2, "--first-rank must be 1 to --depth (5), got 6"),
        ("QUERIES --depth 0", 2, "0 is not in the range 1<=x<=10000"),
        ("QUERIES --also msmarco", 2, "--also must be another collection than msmarco"),
        ("QUERIES --also nothing", 1, "no collection 'nothing'"),
        ("QUERIES --tenant a", 2, "collection 'msmarco' has no tenant field"),
        ("QUERIES --out full", 2, "--out must be a new or empty folder, or one that mine has"),
        ("QUERIES --out queries.tsv", 2, "'queries.tsv' is a file"),
        ("--queries none.tsv --qrels qrels.txt", 1, "no such file: none.tsv"),
        ("--queries queries.tsv --qrels none.txt", 1, "no such file: none.txt"),
        ("--queries qrels.txt --qrels qrels.txt", 1, "these look like judgments"),
        ("--queries queries.tsv --qrels queries.tsv", 1, "is this a file of queries?"),
        ("--queries queries.tsv --qrels others.txt", 2, "none of the 1 relevant passages"),
        ("--clicks qrels.txt", 1, "qrels.txt:1: expected query<TAB>pid<TAB>count"),
    ],
)
def test_what_is_refused(filled: str, arguments: str, status: int, message: str) -> None:
    """In one line, with the options' names."""
    words = arguments.replace("QUERIES", "--queries queries.tsv --qrels qrels.txt").split()
    words += [] if "--out" in words else ["--out", "out"]
    done = command("mine", *words, "--mode", "bm25", "--store", filled)
    assert (status, "") == (done.status, done.out)
    assert message in " ".join(done.err.split())
