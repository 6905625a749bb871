"""Checkpoints: only complete ones are resumed, whatever a killed process left."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmarco_qdrant.train.checkpoints import Checkpoints, save_model, step_of


def write(folder: Path, step: int) -> Path:
    """Write the files of a checkpoint, without its mark."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"state")
    return path


def test_newest_complete_checkpoint_counts(tmp_path: Path) -> None:
    """One without a mark is deleted; a later one replaces the earlier one."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.newest() is None
    first = write(checkpoints.path, 9)
    checkpoints.complete(9)
    partial = write(checkpoints.path, 10)
    assert checkpoints.newest() == first
    assert not partial.exists()
    second = write(checkpoints.path, 18)
    checkpoints.complete(18)
    assert [*checkpoints.path.iterdir()] == [second]
    assert step_of(second) == 18


def test_deleted_mark_makes_a_checkpoint_incomplete(tmp_path: Path) -> None:
    """A process that is killed while it deletes the older checkpoint leaves the newer one."""
    checkpoints = Checkpoints(tmp_path)
    older, newer = write(tmp_path, 9), write(tmp_path, 10)
    for one in (older, newer):
        (one / "complete").touch()
    assert checkpoints.newest() == newer
    (older / "complete").unlink()
    assert checkpoints.newest() == newer
    assert not older.exists()


class _Model:
    """Writes one file, or fails after it as a full disk does."""

    def __init__(self, weights: bytes, *, fails: bool = False) -> None:
        self._weights, self._fails = weights, fails

    def save_pretrained(self, path: str, *, create_model_card: bool) -> None:
        assert not create_model_card
        (Path(path) / "1_Pooling").mkdir(parents=True)
        (Path(path) / "1_Pooling" / "config.json").write_bytes(b"{}")
        (Path(path) / "weights").write_bytes(self._weights)
        if self._fails:
            raise OSError("no space")


def test_saved_model_is_complete_or_missing(tmp_path: Path) -> None:
    """A failed save leaves no folder of the model's name; the next one succeeds."""
    with pytest.raises(OSError, match="no space"):
        save_model(_Model(b"half", fails=True), tmp_path / "model-1")
    assert not (tmp_path / "model-1").exists()
    save_model(_Model(b"one"), tmp_path / "model-1")
    save_model(_Model(b"two"), tmp_path / "model-1")
    assert [one.name for one in tmp_path.iterdir()] == ["model-1"]
    assert (tmp_path / "model-1" / "weights").read_bytes() == b"two"
