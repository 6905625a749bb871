"""The whole loop with a tiny model: trained, measured, killed, and switched only if better."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.cli.output import Printed
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.train.improve import improve_collection
from msmarco_qdrant.train.improve_tables import improve_json, improve_text
from tests.conftest import ROOT
from tests.train.tiny_data import FLOAT32, QRELS, QUERIES, TRAINING, make_collection

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


def test_killed_again_and_again_the_same_call_goes_on(tmp_path: Path) -> None:
    """Kills at changes of files in each step: figures and weights of an undisturbed run."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.improve_program", str(tmp_path), "12", "7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["kills"] >= 5
