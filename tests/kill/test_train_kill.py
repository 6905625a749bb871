"""`kill -9` of a training, then the same again: the weights of one that was never stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from msmarco_qdrant.encoding import load_encoder
from tests.conftest import ROOT
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.kill.train_program import run
from tests.train.training import weights

MOMENTS = ("step:7", "step:13", "move:3")


@pytest.mark.slow
def test_training_killed_three_times_ends_with_equal_weights(tmp_path: Path) -> None:
    """Between two checkpoints twice, and while the model is moved into its folder."""
    model = save_tiny(tmp_path / "tiny", Recipe())
    undisturbed = run(model, tmp_path / "undisturbed")
    out = tmp_path / "killed"
    words = [sys.executable, "-m", "tests.kill.train_program", str(model), str(out), *MOMENTS]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ["-9 0"] * len(MOMENTS) == done.stdout.splitlines(), done.stderr
    assert (out / "modules.json").exists()
    assert not (out / "model.safetensors").exists()  # so nothing loads it

    resumed = run(model, out)
    assert weights(out) == weights(tmp_path / "undisturbed") != weights(model)
    assert resumed.dev == undisturbed.dev
    assert resumed.kept_step == undisturbed.kept_step
    first, second = (load_encoder(one).info for one in (out, tmp_path / "undisturbed"))
    assert first.fingerprint == second.fingerprint
    names = [{one.name for one in folder.iterdir()} for folder in (out, tmp_path / "undisturbed")]
    assert names[0] == names[1]
    stored = [json.loads((one / "report.json").read_text()) for one in (out, undisturbed.out)]
    assert stored[0]["losses"][-1] == stored[1]["losses"][-1]
