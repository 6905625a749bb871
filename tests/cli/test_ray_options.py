"""The options for a Ray cluster: what is refused, without Ray and before anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.runner import command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "auto", "--limit", "3"], "--limit needs an ingest by one process"),
        (["--ray", "auto", "--yes"], "--yes needs --prune"),
        (["--ray", "auto", "--dry-run"], "--dry-run needs an ingest by one process"),
        (["--ray", "auto", "--index-every", "5"], "--index-every needs an ingest by one process"),
        (["--ray-workers", "2"], "--ray ADDRESS"),
        (["--ray", "auto", "--ray-workers", "0"], "--ray-workers"),
        (["--ray", "auto", "--ray-cpus", "1.5"], "--ray-cpus must be whole above 1, got 1.5"),
        (["--ray", "auto", "--ray-gpus", "2.5"], "--ray-gpus must be whole above 1, got 2.5"),
        (["--ray", "auto", "--store", "folder"], "an ingest on Ray needs the URL of a server"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    """In one line; no store is created."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "a.tsv"
    source.write_text("1\tone\n")
    done = command("ingest", str(source), *options)

    assert (2, "") == (done.status, done.out)
    assert message in done.err
    assert [source] == [*tmp_path.iterdir()]


def test_an_encode_on_ray_refuses_the_processes_of_one_machine(tmp_path: Path) -> None:
    """Its own option is named; no folder is created."""
    source = tmp_path / "a.tsv"
    source.write_text("1\tone\n")
    out = str(tmp_path / "vectors")
    done = command("encode", str(source), "--out", out, "--ray", "auto", "--workers", "3")

    assert (2, "") == (done.status, done.out)
    assert "--workers needs an encode by one process" in done.err
    assert [source] == [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--store", "folder"], "a re-embedding on Ray needs the URL of a server"),
        (["--source", "a.tsv"], "--source needs a re-embedding by one process: omit --source"),
        (["--ray-cpus", "1.5"], "--ray-cpus must be whole above 1, got 1.5"),
    ],
)
def test_a_change_of_the_model_on_ray_refuses_what_it_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    """In one line; no store is opened."""
    monkeypatch.chdir(tmp_path)
    place = ["--store", "http://localhost:1"] if "--store" not in options else []
    done = command("migrate", "reembed", "--model", "m", "--ray", "auto", *place, *options)

    assert (2, "") == (done.status, done.out)
    assert message in done.err
    assert [] == [*tmp_path.iterdir()]
