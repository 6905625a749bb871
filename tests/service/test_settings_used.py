"""Every setting is used where it is documented (R4): by the sidecar, and by each command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant import settings as settings_module
from msmarco_qdrant.cli.ingest import ingest as ingest_command
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.sidecar import Sidecar
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.startup import NamedModels
from msmarco_qdrant.service.worker import apply
from msmarco_qdrant.service.worker.worker import WorkerSettings
from msmarco_qdrant.settings import Settings
from msmarco_qdrant.stores import Connection, Store
from tests.cli.runner import command
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.service.sidecars import asked_until, pids_of, put, sidecar_client, wait_until_ready
from tests.service.spool.helpers import ended, running_worker

_READ: set[str] = set()
_FIELDS = frozenset(SidecarSettings.model_fields)

NOT_BY_A_PROGRAM = {"data"}  # of tests and benchmarks
BY_THE_COMMAND_SERVE = {"log_level", "mcp"}  # tests/cli/test_serve.py, tests/integrations

STORE = {"store", "collection", *(field.name for field in fields(Connection))}
MODEL = {"device", "precision"}
USED: dict[str, tuple[Sequence[str], set[str]]] = {
    "ingest": (
        ["ingest", "one.tsv", "--collection", "fresh"],
        STORE
        | MODEL
        | {"model", "max_line_bytes", "window", "on_disk", "quantization"}
        | {"cached_queries"},
    ),
    "search": (["search", "london"], STORE | MODEL | {"cached_queries"}),
    "encode": (["encode", "one.tsv", "--out", "out"], MODEL | {"model", "max_line_bytes"}),
    "reembed": (
        ["migrate", "reembed", "--model", "OTHER", "--allow-worse"],
        STORE | MODEL | {"cached_queries"},
    ),
    "get": (["get", "1"], STORE),
    "delete": (["delete", "2"], STORE),
    "export": (["export", "out.jsonl"], STORE),
    "info": (["info"], STORE - {"collection"}),
    "collections": (["collections"], STORE - {"collection"}),
    "optimize": (["optimize"], STORE),
    "index": (["index", "list"], STORE),
    "migrate": (["migrate", "status"], STORE),
    "backup": (["backup", "msmarco", "--out", "saved"], STORE - {"collection"}),
    "check": (["check", "msmarco"], STORE - {"collection"}),
}


class _Recording:
    """Keeps the names of the settings that a program reads."""

    def __getattribute__(self, name: str) -> Any:
        if name in _FIELDS:
            _READ.add(name)
        return super().__getattribute__(name)


class RecordingSettings(_Recording, Settings):
    """Settings of a command."""


class RecordingSidecarSettings(_Recording, SidecarSettings):
    """Settings of a sidecar."""


@pytest.fixture(autouse=True)
def nothing_is_read() -> Iterator[None]:
    """Each test begins anew."""
    _READ.clear()
    yield
    _READ.clear()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Directories of two tiny models."""
    folder = tmp_path_factory.mktemp("models")
    first, other = (str(save_tiny(folder / str(seed), Recipe(seed=seed))) for seed in (0, 1))
    return first, other


def test_r4_the_sidecar_uses_every_setting(tmp_path: Path) -> None:
    """Those of every command, too: a new setting is used, or has its reason here."""
    inbox = tmp_path / "inbox"
    options = RecordingSidecarSettings(
        store=str(tmp_path / "store"), spool=tmp_path / "spool", port=0, inbox=inbox
    )
    Sidecar(options)  # opens nothing yet
    with sidecar_client(options) as client:
        wait_until_ready(client)
        (inbox / "one.tsv").write_text("1\tlondon is big\n")
        put(client, {"pid": "2", "text": "paris"})
        asked_until(lambda: "1" in pids_of(client, "london") or None)
    loader = MODEL | {"cached_queries"}  # see the next test
    assert NOT_BY_A_PROGRAM | BY_THE_COMMAND_SERVE | loader == _FIELDS - _READ


@pytest.mark.slow
def test_r4_the_models_of_the_sidecar_use_their_settings(models: tuple[str, str]) -> None:
    """The default loader, which the other test replaces."""
    loader = NamedModels(RecordingSidecarSettings(model=models[0], device="cpu"))
    loader.of(loader.new().info)
    assert MODEL | {"model", "cached_queries", "collection"} == _READ


@pytest.mark.slow
@pytest.mark.parametrize("name", USED)
def test_r4_a_command_uses_its_settings(
    name: str, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment, without any option."""
    monkeypatch.setenv("MSMARCO_QDRANT_STORE", "here")
    monkeypatch.setenv("MSMARCO_QDRANT_MODEL", models[0])
    monkeypatch.setenv("MSMARCO_QDRANT_WINDOW", "512")  # its default depends on the machine's GPUs
    Path("one.tsv").write_text("1\tlondon is big\n2\tparis\n")
    assert 0 == command("ingest", "one.tsv").status
    monkeypatch.setattr(settings_module, "Settings", RecordingSettings)
    _READ.clear()
    words, expected = USED[name]
    done = command(*(models[1] if word == "OTHER" else word for word in words))
    assert 0 == done.status, done.err
    assert set() == expected - _READ


def test_r4_every_setting_of_commands_is_used_by_one() -> None:
    """A new setting has its command here."""
    used = set().union(*(expected for _, expected in USED.values()))
    assert set(Settings.model_fields) - NOT_BY_A_PROGRAM == used
    assert ingest_command.name in USED


# ---- what the sidecar ignored ----------------------------------------------------------------


def test_r4_the_sidecar_rejects_longer_lines(tmp_path: Path) -> None:
    """Of files in its inbox; passages by HTTP have limits of their own."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for name in ("a.tsv", "b.jsonl"):
        pid, text = name[0], "londonlong " * 150
        row = f"{pid}\t{text}\n{pid}2\tshort london\n"
        if name.endswith("jsonl"):
            row = f'{{"pid": "{pid}", "text": "{text}"}}\n{{"pid": "{pid}2", "text": "short"}}\n'
        (inbox / name).write_text(row)
    options = SidecarSettings(
        store=str(tmp_path / "store"),
        spool=tmp_path / "spool",
        port=0,
        inbox=inbox,
        max_line_bytes=1024,
    )
    with sidecar_client(options) as client:
        wait_until_ready(client)
        asked_until(lambda: (not [*inbox.iterdir()]) or None)
        report = put(client, {"pid": "c", "text": "londonlong " * 150})
        assert (1, 0) == (report["written"], report["rejected"])
        assert {"a2", "b2", "c"} == set(pids_of(client, "londonlong short london"))


def test_r4_the_sidecar_flushes_by_the_window(
    spool: Spool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ingest of each batch gets it."""
    windows = []

    def recording(source: Any, place: Store, **options: Any) -> Any:
        windows.append(options["window"])
        return ingest_passages(source, place, **options)

    monkeypatch.setattr(apply, "ingest_passages", recording)
    with running_worker(spool, store, settings=WorkerSettings(window=7)):
        ended(spool, spool.accept([{"op": "write", "pid": "1", "text": "one"}]))
    assert [7] == windows
