"""Arguments and steps of `improve`: what is refused, and what is kept on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from msmarco_qdrant.train.improve import improve_collection
from msmarco_qdrant.train.improve_commands import StepCommands
from msmarco_qdrant.train.improve_log import StepLog
from msmarco_qdrant.train.improve_records import ImproveStep
from msmarco_qdrant.train.mined_mode import judged_mode
from msmarco_qdrant.train.out_folder import OutFolder
from msmarco_qdrant.train.settings import TrainSettings

COUNT = 100
QUERIES = [Query(f"q{number}", f"what is item {number}") for number in range(COUNT)]
QRELS = {query.qid: {query.qid[1:]: 1} for query in QUERIES}
PASSAGES = [Passage(str(number), f"the item {number}", {"of": "me"}) for number in range(COUNT)]


@pytest.fixture(scope="module")
def client() -> Iterator[SearchClient]:
    """A collection that answers the queries."""
    with open_store(":memory:", create=True) as store:
        ingest_passages(PASSAGES, store, collection="things", encoder=HashingEncoder())
        yield SearchClient(store, "things", HashingEncoder())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, r"rounds must be 1 to 10, got 0"),
        ({"rounds": True}, r"rounds must be 1 to 10, got True"),
        ({"rounds": 1.5}, r"rounds must be 1 to 10, got 1\.5"),
        ({"depth": 0}, r"depth must be 1 to 10,000, got 0"),
        ({"depth": "100"}, r"depth must be 1 to 10,000, got '100'"),
        ({"modes": ()}, r"modes must be different ones of dense, bm25, hybrid, got \(\)"),
        ({"modes": "dense"}, r"modes must be different ones of .*, got 'dense'"),
        ({"modes": ["dense", "dense"]}, r"modes must be different ones"),
        ({"modes": ["bm25"]}, r"modes must begin with dense or hybrid"),
        ({"mine_modes": ["sparse"]}, r"mine_modes must be different ones"),
        ({"measures": "nonsense"}, r"nonsense"),
        ({"training": {"epochs": 0}}, r"epochs must be a number above 0"),
        ({"training": {"epoch": 1}}, r"training has no field 'epoch': did you mean 'epochs'"),
        ({"training": 3}, r"training must be .*dictionary"),
        ({"learning_rates": []}, r"learning_rates must be a list of one number or more, got \[\]"),
        ({"learning_rates": 1e-4}, r"learning_rates must be a list .*, got 0\.0001"),
        ({"learning_rates": [1e-4, 1e-4]}, r"learning_rates must be different"),
        ({"learning_rates": [2]}, r"learning_rate must be a number above 0, at most 1, got 2"),
        (
            {"learning_rates": [1e-4], "training": {"learning_rate": 1e-4}},
            r"pass learning_rates=\.\.\., or the learning_rate of training, not both",
        ),
        ({"training": {"loss": "kl"}}, r"loss kl needs a judge's scores: pass judge="),
        ({"strategy": "margin:3"}, r"strategy margin:3 compares scores: pass judge="),
        ({"strategy": "nonsense"}, r"nonsense"),
        ({"allow_weak_judge": True}, r"allow_weak_judge has no effect without judge="),
        (
            {"judge": WordOverlapReranker(), "training": {"negatives": 0}},
            r"a judge has no effect with negatives=0",
        ),
        ({"judge": "electra"}, r"must have the members of Reranker, got"),
        ({"test_queries": QUERIES}, r"pass test_queries with test_qrels, or neither"),
        ({"test_qrels": QRELS}, r"pass test_queries with test_qrels, or neither"),
        ({"test_queries": QUERIES[:5], "test_qrels": QRELS}, r"got 5 for test of 95"),
        ({"test_queries": [], "test_qrels": QRELS}, r"one query or more, got none"),
        ({"test_share": 0.9}, r"test_share must be above 0 and at most 0\.5, got 0\.9"),
        ({"queries": QUERIES[:20]}, r"10 queries with a relevant passage or more in each part"),
        ({"queries": []}, r"one query or more, got none"),
        ({"tenant": "me"}, r"has no tenant field|has no tenants"),
        ({"qrels": {"q1": "12"}}, r"a list of pids, for each query, got '12' for 'q1'"),
        ({"qrels": {"q1": 3}}, r"a list of pids, for each query, got 3 for 'q1'"),
        ({"qrels": ["1"]}, r"qrels must be judgments or positives by qid, got \['1'\]"),
        ({"qrels": {}}, r"none of the 100 queries has judgments"),
        (
            {"qrels": {query.qid: {f"d{query.qid}": 1} for query in QUERIES}},
            r"none of the \d+ relevant passages of the judgments is in the collection 'things'",
        ),
        (
            {"queries": [Query("q 0", "item"), *QUERIES[1:]], "qrels": {**QRELS, "q 0": {"0": 1}}},
            r"without white space, got 'q 0'",
        ),
        ({"encoder_options": {"devices": "cpu"}}, r"did you mean 'device'"),
        ({"epochs": 2}, r"improve_collection\(\) has no argument 'epochs'"),
    ],
)
def test_invalid_arguments_are_refused_before_any_work(
    client: SearchClient, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """The rule, the value and the next step; the folder is not made."""
    given = {"queries": QUERIES, "qrels": QRELS, **options}
    with pytest.raises(UsageError, match=message):
        improve_collection(client, out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_tenant_is_needed_and_never_switches(tmp_path: Path) -> None:
    """Where the collection has tenants; a model is of a whole collection."""
    with open_store(":memory:", create=True) as store:
        ingest_passages(PASSAGES, store, collection="things", encoder=HashingEncoder())
        set_tenant_field(store, "things", "of")
        client = SearchClient(store, "things", HashingEncoder())
        cases: list[tuple[dict[str, Any], str]] = [
            ({}, r"tenant"),
            ({"tenant": "me", "apply": True}, r"apply would switch the model of all tenants, and"),
            ({"tenant": "you"}, r"is in the collection 'things' of the tenant 'you'"),
        ]
        for options, message in cases:
            with pytest.raises(UsageError, match=message):
                improve_collection(client, QUERIES, QRELS, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()


def test_client_without_a_model_is_refused(client: SearchClient, tmp_path: Path) -> None:
    """There would be nothing to train."""
    bm25 = SearchClient(client.store, "things", None)
    with pytest.raises(UsageError, match="it has no encoder"):
        improve_collection(bm25, QUERIES, QRELS, tmp_path / "out")


def test_finished_steps_are_not_run_again(tmp_path: Path) -> None:
    """A step without a note is run again; one with a note is read."""
    runs: list[str] = []

    def work() -> Mapping[str, Any]:
        runs.append("run")
        return {"count": len(runs)}

    def broken() -> Mapping[str, Any]:
        (tmp_path / "out" / "round-1" / "model").mkdir()
        raise OSError("killed")

    with OutFolder(tmp_path / "out", "improve", {}) as folder:
        log = StepLog(folder, lambda _step: None, lambda _line: None)
        first = log.run(1, "mine", work, folder="mined", command="mine")
        with pytest.raises(OSError, match="killed"):
            log.run(1, "train", broken, folder="model")
    seen: list[ImproveStep] = []
    lines: list[str] = []
    with OutFolder(tmp_path / "out", "improve", {}) as folder:
        log = StepLog(folder, seen.append, lines.append)
        assert log.run(1, "mine", work, folder="mined", command="mine") == first
        again = log.run(1, "train", work, folder="model")
    assert (first.figures, first.resumed) == ({"count": 1}, False)
    assert (again.figures, again.resumed) == ({"count": 2}, True)
    assert seen == [first, again] == log.steps
    assert lines == ["round 1: train"]


def test_judge_must_rank_better_than_what_mined() -> None:
    """A judge that is better than dense search alone may be worse than hybrid search."""
    assert judged_mode(["dense"]) == "dense"
    assert judged_mode(["bm25"]) == "bm25"
    assert judged_mode(["hybrid"]) == "hybrid"
    assert judged_mode(["dense", "bm25"]) == "hybrid"


def test_commands_have_the_options_of_their_step(tmp_path: Path) -> None:
    """A command without them would fill a folder in another way, and be refused."""
    commands = StepCommands("things", "store", tmp_path)
    mined, judged, out = Path("mined"), Path("judged"), Path("out")
    chosen = commands.choose(mined, judged, "margin:3", 7, out)
    assert "--strategy margin:3 --number 0 --scores judged --seed 7 --out out" in chosen
    settings = TrainSettings(loss="kl", epochs=0.5, negatives=8, max_positives=2, seed=3)
    trained = commands.train("base", Path("chosen"), judged, settings, out)
    assert "--negatives chosen --scores judged" in trained
    assert (
        "--loss kl --epochs 0.5 --learning-rate 2e-05 --max-positives 2 --number 8 --seed 3"
    ) in trained
    weak = commands.judge(
        WordOverlapReranker(), None, mined, judged, mode="hybrid", depth=50, allow_weak=True
    )
    assert "--mode hybrid --depth 50 --allow-weak-judge --out judged" in weak
    assert "--measures RR@10" in commands.evaluate(None, ["dense"], ["RR@10"])
    tenants = StepCommands("things", "store", tmp_path, "me")
    assert "--tenant me" in tenants.mine(None, ["dense"], 10, out)
    assert "--tenant" not in tenants.mine(tmp_path, ["dense"], 10, out)  # a trial has no tenants
    assert "--tenant me" in tenants.train("base", None, None, settings, out)
