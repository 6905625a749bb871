"""The whole loop with a tiny model: trained, measured, killed, and switched only if better."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.cli.output import Printed
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import ModelMismatchError, UsageError, WeakJudgeError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import WordOverlapReranker
from msmarco_qdrant.train.improve import improve_collection
from msmarco_qdrant.train.improve_records import ImproveStep
from msmarco_qdrant.train.improve_tables import improve_json, improve_text
from msmarco_qdrant.train.negatives_file import read_negatives
from tests.conftest import ROOT
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.train.tiny_data import FLOAT32, PASSAGES, QRELS, QUERIES, TRAINING, make_collection

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a collection whose model is random."""
    folder = tmp_path_factory.mktemp("improve")
    make_collection(folder)
    return folder


def check_command(line: str) -> None:
    """Parse a step's command, if it has one, as the program would."""
    if line:
        _, name, *words = shlex.split(line)
        if name in cli.commands:
            cli.commands[name].make_context(name, words, obj=Printed())


def test_better_model_is_switched_to_only_when_asked(folder: Path) -> None:
    """The same call with `apply` trains nothing again, and switches."""
    with SearchClient.open(
        folder / "store", collection="things", encoder_options=FLOAT32
    ) as client:

        def improve(*, apply: bool) -> dict[str, object]:
            report = improve_collection(
                client,
                QUERIES,
                QRELS,
                folder / "out",
                training=TRAINING,
                depth=20,
                encoder_options=FLOAT32,
                apply=apply,
            )
            text, value = improve_text(report), improve_json(report)
            assert json.loads(json.dumps(value)) == value
            assert report.verdict.reason in text
            return {**value, "text": text}

        before = client.metadata
        first = improve(apply=False)
        assert first["verdict"]["is_better"], first["text"]  # type: ignore[index]
        assert f"migrate reembed --model {first['model']}" in str(first["text"])
        for step in first["steps"]:  # type: ignore[attr-defined]
            check_command(step["command"])
        assert client.search("london")[0] is not None
        assert client.metadata == before
        second = improve(apply=True)
        assert second["steps"] == first["steps"]
        assert second["evaluations"] == first["evaluations"]
        assert second["switched"] is not None
        client.search("london")
        assert client.metadata.encoder.model == first["model"]
        saved = json.loads((folder / "out" / "report.json").read_text("utf-8"))
        assert saved["switched"]["model"] == first["model"]
        assert improve(apply=True)["switched"] is not None
        other = save_tiny(folder / "other", Recipe(similarity="cosine", seed=1))
        reembed_collection(client.store, "things", model=other, allow_worse=True)
        with pytest.raises(UsageError, match=r"'things' has vectors of .*other now, and of"):
            improve(apply=True)
        assert client.store.metadata("things").encoder.model == str(other)


def delete_after(step: ImproveStep, client: SearchClient, number: int, pid: str) -> None:
    """Delete a passage in a round, before its passages are encoded."""
    if (step.round, step.name) == (number, "mine"):
        client.delete([pid])


def test_one_tenants_passages_train_and_measure(tmp_path: Path) -> None:
    """In both rounds: candidates and the trial are its own; positives may be given as pids.

    A passage is deleted during the second round, which the report shows.
    """
    model = save_tiny(tmp_path / "model", Recipe(similarity="cosine"))
    rows = [replace(passage, meta={"of": "me"}) for passage in PASSAGES]
    rows += [Passage(f"you {one.pid}", one.text, {"of": "you"}) for one in PASSAGES]
    with open_store(tmp_path / "store", create=True) as store:
        usual: dict[str, Any] = {"model": model, "encoder_options": FLOAT32}
        ingest_passages(rows, store, collection="things", bm25={"avg_len": 2.0}, **usual)
        set_tenant_field(store, "things", "of")
        with SearchClient.open(store, collection="things", encoder_options=FLOAT32) as client:
            report = improve_collection(
                client,
                QUERIES,
                {qid: [*pids] for qid, pids in QRELS.items()},
                tmp_path / "out",
                tenant="me",
                training={**TRAINING, "epochs": 1},
                rounds=2,
                depth=20,
                encoder_options=FLOAT32,
                on_step=lambda step: delete_after(step, client, 2, "you 1"),
            )
    assert (2,) == report.changed_rounds
    assert "changed after the old model searched them, and before round 2" in improve_text(report)
    for number in (1, 2):
        found = read_negatives(tmp_path / "out" / f"round-{number}" / "mined")
        mined = [pid for one in found for pids in one.negatives.values() for pid in pids]
        assert [] == [pid for pid in mined if pid.startswith("you")]
        with open_store(tmp_path / "out" / f"round-{number}" / "trial") as trial:
            assert len(PASSAGES) == trial.collection("trial").count()
    commands = [step.command for step in report.steps]
    for command in commands:
        check_command(command)
    assert ["--tenant me" in command for command in commands if " mine " in command] == [
        True,
        False,
    ]


def test_worse_model_is_never_switched_to(tmp_path: Path) -> None:
    """A learning rate that destroys the model changes nothing, with `apply` as well."""
    make_collection(tmp_path)
    with SearchClient.open(
        tmp_path / "store", collection="things", encoder_options=FLOAT32
    ) as client:
        before = client.metadata
        report = improve_collection(
            client,
            QUERIES,
            QRELS,
            tmp_path / "out",
            training={**TRAINING, "epochs": 1, "learning_rate": 1.0, "negatives": 0},
            encoder_options=FLOAT32,
            apply=True,
        )
        assert [step.name for step in report.steps] == ["before", "train", "encode", "search"]
        assert not report.verdict.is_better
        assert report.switched is None
        assert report.command == ""
        assert f"'things' keeps {report.old_model}" in improve_text(report)
        assert client.store.metadata("things") == before


class Translator:
    """A judge that scores the words of a passage which a query translates: the true order."""

    model = "translator"

    def warm_up(self) -> None:
        """Do nothing."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return 5 for each word that is translated."""
        answers = {query.text: PASSAGES[number].text for number, query in enumerate(QUERIES)}
        found = [len({*answers[query].split()} & {*text.split()}) for query, text in pairs]
        return np.array([5 * count for count in found], np.float32)


def test_judge_is_judged_and_its_scores_choose(tmp_path: Path) -> None:
    """A judge that ranks worse than the model ends the loop; one that ranks better is used."""
    make_collection(tmp_path)
    options = {**TRAINING, "epochs": 1}
    with SearchClient.open(
        tmp_path / "store", collection="things", encoder_options=FLOAT32
    ) as client:
        given = (client, QUERIES, QRELS)
        with pytest.raises(WeakJudgeError):
            improve_collection(
                *given, tmp_path / "weak", judge=WordOverlapReranker(), training=options
            )
        other = save_tiny(tmp_path / "other", Recipe(similarity="cosine", seed=1))
        with pytest.raises(ModelMismatchError, match="you asked for"):
            improve_collection(*given, tmp_path / "mismatch", model=other, training=options)
        assert not (tmp_path / "weak" / "round-1" / "judge.json").exists()
        report = improve_collection(
            *given,
            tmp_path / "out",
            judge=Translator(),
            training=options,
            encoder_options=FLOAT32,
        )
    names = [step.name for step in report.steps]
    assert names == ["before", "mine", "judge", "choose", "train", "encode", "search"]
    for step in report.steps:
        check_command(step.command)
    chosen = list(read_negatives(tmp_path / "out" / "round-1" / "chosen"))
    texts = {one.pid: {*one.text.split()} for one in PASSAGES}
    assert chosen
    for one in chosen:  # a margin of 3 excludes no passage with one of two words
        assert all(texts[pid] != texts[one.positives[0]] for pid in one.negatives["chosen"])


def test_killed_again_and_again_the_same_call_goes_on(tmp_path: Path) -> None:
    """Kills at changes of files in each step: figures and weights of an undisturbed run."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.improve_program", str(tmp_path), "8", "7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["kills"] >= 4
