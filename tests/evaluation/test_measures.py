"""Measures: their names, and values that were computed by hand."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmarco_qdrant.errors import MsmarcoQdrantError, UsageError
from msmarco_qdrant.evaluation import (
    DEFAULT_MEASURES,
    Run,
    depth_of,
    parse_measures,
    read_qrels,
    read_run,
)
from msmarco_qdrant.evaluation.measures import measure_run
from msmarco_qdrant.evaluation.runs import rank_scores
from tests.evaluation.cases import BETTER, NDCG_OF_PLAIN, PLAIN, QRELS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nDCG@10 RR@10 R@1000", ("nDCG@10", "RR@10", "R@1000")),
        (" nDCG@10,RR(rel=2)@10 ,\tAP\n", ("nDCG@10", "RR(rel=2)@10", "AP")),
        ("nDCG(gains={0: 0, 1: 3})@10", ("nDCG(gains={1:3})@10",)),
        ("RR@10 MRR@10 NDCG@10 RR@10", ("RR@10", "nDCG@10")),
        (DEFAULT_MEASURES, ("nDCG@10", "RR@10", "R@100")),
    ],
)
def test_measures_are_parsed(text: str, expected: tuple[str, ...]) -> None:
    """Each once, with parameters, between commas or white space."""
    assert expected == parse_measures(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nDCG@10 nDCQ@10", r"measure 'nDCQ@10' is unknown; examples: nDCG@10, RR@10"),
        ("nDCG@", "measure 'nDCG@' is unknown"),
        ("import os", "measure 'import' is unknown"),
        ("RR(2)@10", r"measure 'RR\(2\)@10' is unknown"),
        ("nDCG@0", "cutoff of a measure must be 1 or more, got 0 in 'nDCG@0'"),
        ("nDCG(cutoff=0)", "must be 1 or more, got 0"),
        ("P@-1", "must be 1 or more, got -1"),
        ("nDCG@1.5", "must be 1 or more, got 1.5"),
        ("P@True", "must be 1 or more, got True"),
        ("R", "measure 'R' cannot be computed here"),
        ("Accuracy", "measure 'Accuracy' cannot be computed here: float division by zero"),
        ("P(depth=1)@3", r"measure 'P\(depth=1\)@3' cannot be computed here"),
        (" , ", "measures must name one or more, such as nDCG@10"),
    ],
)
def test_invalid_measure_is_refused(text: str, message: str) -> None:
    """Before anything is searched, and before trec_eval ends the process."""
    with pytest.raises(UsageError, match=message):
        parse_measures(text)


def test_r10_failure_of_the_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never as an unknown measure: a new Python may break the library at any place."""
    broken = SimpleNamespace(registry={"P": type("P", (), {"AT_PARAM": "cutoff"})})
    reason = "the library ir_measures failed on Python 3"
    for measures in (None, broken):
        monkeypatch.setattr(ir_measures, "measures", measures)
        with pytest.raises(MsmarcoQdrantError, match=reason) as caught:
            parse_measures("P@10")
        assert MsmarcoQdrantError is type(caught.value)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (AttributeError("module 'ast' has no attribute 'Num'"), "AttributeError: module 'ast' has"),
        (ImportError("cannot import name 'Num'"), "ImportError: cannot import name 'Num'"),
        (ModuleNotFoundError("No module named 'imp'", name="imp"), "No module named 'imp'"),
        (ModuleNotFoundError("x", name="ir_measures"), "evaluating needs the extra 'eval'"),
    ],
)
def test_r10_failed_import_is_named(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    """Only a library that is not installed needs the extra."""

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "ir_measures":
                raise failure

    monkeypatch.delitem(sys.modules, "ir_measures")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(MsmarcoQdrantError, match=re.escape(message)):
        parse_measures("P@10")


def test_a_run_is_measured() -> None:
    """By hand: gains 0, 3, 0, 1 of 3, 1; a relevant passage at rank 2 has 1/log2(3)."""
    values = measure_run(["nDCG@10", "RR@10", "R@2", "RR(rel=2)@1"], QRELS, PLAIN)

    assert ["q1", "q2", "q3"] == list(values["nDCG@10"])
    assert pytest.approx({"q1": NDCG_OF_PLAIN, "q2": 1.0, "q3": 0.0}) == values["nDCG@10"]
    assert {"q1": 0.5, "q2": 1.0, "q3": 0.0} == values["RR@10"]
    assert {"q1": 0.5, "q2": 1.0, "q3": 0.0} == values["R@2"]
    assert {"q1": 0.0, "q2": 0.0, "q3": 0.0} == values["RR(rel=2)@1"]
    better = measure_run(["nDCG@10"], QRELS, BETTER)["nDCG@10"]
    assert pytest.approx({"q1": 1.0, "q2": 1 / math.log2(3), "q3": 1.0}) == better
    run = Run("x", {"q": [("a", 1.0)], "unjudged": [("a", 1.0)]})
    assert {"nDCG@10": {"q": 0.0}} == measure_run(["nDCG@10"], {"q": {"a": 0}}, run)


@pytest.mark.skipif(shutil.which("perl") is None, reason="gdeval, which computes it, needs perl")
def test_a_program_of_its_own_gets_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    """By hand: grades 1 and 3 of 4 stop 1/16 and 7/16; gdeval takes a-1 and b-1 for one query."""
    assert ("ERR@10",) == parse_measures("ERR@10")
    run = Run("x", {"a-1": [("p", 1.0)], "b-1": [("x", 2.0), ("p", 1.0)]})
    values = measure_run(["ERR@10"], {"a-1": {"p": 1}, "b-1": {"p": 3}, "c": {"p": 1}}, run)

    assert {"a-1": 1 / 16, "b-1": 7 / 32, "c": 0.0} == pytest.approx(values["ERR@10"], abs=1e-5)
    for name in ("ERR@10", "nDCG(dcg='exp-log2')@10"):
        with pytest.raises(UsageError, match="accepts grades up to 4, got 5"):
            measure_run([name], {"q": {"p": 5}}, run)
    assert ("", "") == tuple(capfd.readouterr())


def test_missing_program_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In its own process: the library looks for programs once."""
    program = (
        "from msmarco_qdrant.cli.app import main; import sys; from pathlib import Path;"
        "Path('q').write_text('1\\ta\\n'); Path('r').write_text('1 0 a 1\\n');"
        "sys.exit(main('evaluate --queries q --qrels r --measures ERR@10'.split()))"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)

    err = capfd.readouterr().err
    assert 2 == done.returncode
    assert "Error: measure 'ERR@10' cannot be computed here: Unsupported measures" in err
    assert "perl" in err


def test_many_queries_are_measured() -> None:
    """In parts, in the order of the judgments."""
    qids = [f"q{number}" for number in range(600)]
    run = Run("x", {qid: [("b", 2.0), ("a", 1.0)] for qid in qids[::2]})

    values = measure_run(["RR@10"], {qid: {"a": 1} for qid in qids}, run)["RR@10"]

    assert qids == [*values]
    assert [0.5, 0.0] * 300 == [*values.values()]


@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"), st.sampled_from([-1.0, 0.5, 1.0, 1.0 + 1e-9, 1.0 + 1e-6])
    ),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), min_size=1),
)
def test_the_order_is_that_of_trec_eval(scores: dict[str, float], grades: dict[str, int]) -> None:
    """The values are the same as from the scores, also for ties."""
    measures = [ir_measures.nDCG @ 3, ir_measures.nDCG, ir_measures.P @ 2, ir_measures.AP]
    names = [str(measure) for measure in measures]
    expected = ir_measures.iter_calc(measures, {"q": grades}, {"q": scores})

    values = measure_run(names, {"q": grades}, Run("x", {"q": rank_scores(scores)}))

    assert {str(one.measure): one.value for one in expected} == pytest.approx(
        {name: found["q"] for name, found in values.items()}
    )


def test_depth_is_the_largest_cutoff() -> None:
    """None if a measure uses the whole ranking."""
    assert 100 == depth_of(["nDCG@10", "R@100", "RR(rel=2)@20"])
    assert depth_of(["nDCG@10", "AP"]) is None


def test_the_given_run_has_its_known_figure(real_data: Path) -> None:
    """nDCG@10 of Anserini's BM25 on TREC DL 2019 is 0.5058; others as from `ir_measures`."""
    qrels_path, run_path = real_data / "qrels.dl19.txt", real_data / "bm25-top100.dl19.trec"
    rr, recall = ir_measures.RR, ir_measures.R
    measures = [ir_measures.nDCG @ 10, rr @ 10, rr(rel=2) @ 10, recall @ 100]
    names = [str(measure) for measure in measures]
    expected = ir_measures.calc_aggregate(
        measures,
        ir_measures.read_trec_qrels(str(qrels_path)),  # type: ignore[no-untyped-call]
        ir_measures.read_trec_run(str(run_path)),  # type: ignore[no-untyped-call]
    )

    values = measure_run(names, read_qrels(qrels_path), read_run(run_path))

    means = {name: sum(found.values()) / len(found) for name, found in values.items()}
    assert 43 == len(values["nDCG@10"])
    assert pytest.approx(0.5058, abs=1e-4) == means["nDCG@10"]
    assert pytest.approx({str(measure): value for measure, value in expected.items()}) == means
