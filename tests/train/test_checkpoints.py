"""Checkpoints: only complete ones are resumed, whatever a killed process left."""

from __future__ import annotations

from pathlib import Path

from msmarco_qdrant.train.checkpoints import Checkpoints, step_of


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
