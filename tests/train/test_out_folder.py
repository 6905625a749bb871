"""The output folder of a step: one process, one recipe."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from msmarco_qdrant.errors import OutputError, SourceError, UsageError
from msmarco_qdrant.train.out_folder import OutFolder, digest_files, digest_of

SETTINGS = {"depth": 100, "modes": ("dense",), "queries": digest_of(["q1", "london"])}


def test_same_settings_resume_a_folder(tmp_path: Path) -> None:
    """A second run with the same settings finds the files of the first."""
    with OutFolder(tmp_path / "out", "mine", SETTINGS) as folder:
        assert not folder.is_resumed
        assert folder.read_json("report.json") is None
        folder.write_json("report.json", {"queries": 2})
    with OutFolder(tmp_path / "out", "mine", SETTINGS) as folder:
        assert folder.is_resumed
        assert folder.read_json("report.json") == {"queries": 2}


@pytest.mark.parametrize(
    ("step", "settings", "message"),
    [
        ("judge", SETTINGS, r"out must be a folder of judge, got .* of mine: name another folder"),
        ("mine", {**SETTINGS, "depth": 50}, r"was begun with depth 100, got 50: repeat the first"),
        ("mine", {"depth": 100}, r"was begun with modes \[\"dense\"\], got null"),
        ("mine", {**SETTINGS, "seed": 1}, r"was begun with seed null, got 1"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, step: str, settings: dict[str, object], message: str
) -> None:
    """A folder never mixes two recipes; the first difference is named."""
    OutFolder(tmp_path / "out", "mine", SETTINGS).close()
    with pytest.raises(UsageError, match=message):
        OutFolder(tmp_path / "out", step, settings)
    OutFolder(tmp_path / "out", "mine", SETTINGS).close()


def test_a_url_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be a folder named "s3:" on this machine."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"a path on this machine is needed here, got a URL"):
        OutFolder("s3://bucket/mined", "mine", SETTINGS)
    assert not any(tmp_path.iterdir())


def _fail(out: Path, settings: dict[str, object], work: str = "") -> None:
    with OutFolder(out, "mine", settings) as folder:
        if work:
            (folder.path / work).parent.mkdir()
            (folder.path / work).write_text("x")
        raise SourceError("queries.tsv is empty")


def test_a_step_that_fails_before_its_work_leaves_no_settings(tmp_path: Path) -> None:
    """So a corrected call may use the folder; with a file of its work it may not."""
    for depth, work in ((100, ""), (50, ""), (100, "parts/0")):
        with pytest.raises(SourceError, match="is empty"):
            _fail(tmp_path / "out", {**SETTINGS, "depth": depth}, work)
    with pytest.raises(UsageError, match="was begun with depth 100, got 50"):
        OutFolder(tmp_path / "out", "mine", {**SETTINGS, "depth": 50})


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    """Files of the user are never mixed with a step's."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"out must be a new or empty folder.*'thesis\.tex'"):
        OutFolder(tmp_path, "mine", SETTINGS)


@pytest.mark.parametrize("text", ["{", "[]", '{"step": "mine"}'])
def test_unreadable_settings_are_refused(tmp_path: Path, text: str) -> None:
    """A damaged file is named, not replaced."""
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(OutputError, match=r"settings\.json"):
        OutFolder(tmp_path, "mine", SETTINGS)
    assert (tmp_path / "settings.json").read_text() == text


def test_path_of_a_file_is_refused(tmp_path: Path) -> None:
    """The folder's path must not be that of a file."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"cannot write in the folder .*file"):
        OutFolder(tmp_path / "file", "mine", SETTINGS)


def test_second_process_is_refused(tmp_path: Path) -> None:
    """Two processes never fill one folder; the message has the other's process id."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "out", ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(OutputError, match=rf"in use by process {other.pid}"):
            OutFolder(tmp_path / "out", "mine", SETTINGS)
    finally:
        done.set()
        other.join()
    OutFolder(tmp_path / "out", "mine", SETTINGS).close()


def _hold(path: Path, ready: object, done: object) -> None:
    with OutFolder(path, "mine", SETTINGS):
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_digest_separates_texts() -> None:
    """Texts that join to the same string have other digests."""
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])
    assert digest_of(["ab", "c"]) == digest_of(iter(["ab", "c"]))


def test_digest_of_files_follows_names_and_bytes(tmp_path: Path) -> None:
    """A folder's digest changes with each visible file, not with its lock."""
    (tmp_path / "a").write_text("1")
    first = digest_files(tmp_path)
    (tmp_path / ".lock").write_text("7")
    assert digest_files(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_files(tmp_path) != first
    assert digest_files(tmp_path / "b") == digest_files(str(tmp_path / "b"))
    with pytest.raises(SourceError, match=r"cannot read .*gone"):
        digest_files(tmp_path / "gone")
