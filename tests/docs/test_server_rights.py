"""The table of rights in docs/server.md: each command runs with them, and not with fewer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.startup import NamedModels, Startup
from msmarco_qdrant.stores import Connection, open_store
from msmarco_qdrant.stores.migration_locks import hold_lock
from tests.cli.runner import command
from tests.conftest import ROOT
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.loopback import LoopbackServer

_SECTION = (ROOT / "docs" / "server.md").read_text("utf-8").split("## Keys and their rights")[1]
_ROWS = re.findall(r"^\| (`.+?) \| (.+?) \|$", _SECTION.split("\n## ")[0], flags=re.MULTILINE)
_TABLE = {use: rights for uses, rights in _ROWS for use in re.findall(r"`([^`]+)`", uses)}
_NAMES = ("msmarco", "msmarco__0001")
_LOCKS = "msmarco_qdrant_locks"
# what the column says: the rights, and the most that is not enough
_RIGHTS: Mapping[str, tuple[Any, Any]] = {
    "`r` for both names": (dict.fromkeys(_NAMES, "r"), {"msmarco": "r"}),
    "`r` for both names and for `msmarco_qdrant_locks`": (
        dict.fromkeys((*_NAMES, _LOCKS), "r"),
        dict.fromkeys(_NAMES, "r"),
    ),
    "`rw` for both names": (dict.fromkeys(_NAMES, "rw"), dict.fromkeys(_NAMES, "r")),
    "`rw` for both names, because the server writes a snapshot": (
        dict.fromkeys(_NAMES, "rw"),
        dict.fromkeys(_NAMES, "r"),
    ),
    "global `m`": ("m", dict.fromkeys((*_NAMES, "msmarco__0002"), "rw")),
}
_ARGUMENTS = {
    "search": "search london",
    "get": "get 1",
    "export": "export out.jsonl",
    "info": "info --collection msmarco",
    "optimize": "optimize",
    "migrate status": "migrate status",
    "migrate check": "migrate check",
    "backup --portable": "backup msmarco --out saved --portable",
    "check": "check msmarco",
    "ingest": "ingest SOURCE --model OLD",
    "ingest --prune": "ingest SOURCE --model OLD --prune --yes",
    "delete": "delete 1",
    "serve": "",
    "backup": "backup msmarco --out saved",
    "drop": "drop msmarco --yes",
    "restore": "restore saved --name other",
    "migrate up": "migrate up",
    "index add": "index add year=integer",
    "index remove": "index remove year",
    "migrate reembed": "migrate reembed --model NEW --allow-worse",
    "migrate rollback": "migrate rollback --allow-worse",
    "migrate prune": "migrate prune --yes",
    "migrate link": "migrate link msmarco",
    "check --repair": "check msmarco --repair",
}
_QUICK = ("search",)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Directories of two tiny models."""
    folder = tmp_path_factory.mktemp("models")
    old, new = (str(save_tiny(folder / str(seed), Recipe(seed=seed))) for seed in (0, 1))
    return old, new


@pytest.fixture
def place(
    request: pytest.FixtureRequest, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopbackServer]:
    """A server with passages and locks; commands use the key `given`."""
    use: str = request.node.callspec.params["use"]
    enough, less = _RIGHTS[_TABLE[use]]
    with LoopbackServer("key", tokens={"enough": enough, "less": less}) as server:
        connection = Connection(api_key="key", retry_s=0)
        with closing(open_store(server.rest_url, connection=connection)) as store:
            passages = [Passage(pid, f"london {pid}") for pid in "123"]
            ingest_passages(passages, store, encoder=load_encoder(models[0], device="cpu"))
            with hold_lock(store.migration_locks, "msmarco"):
                pass
        monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", "key")
        monkeypatch.setenv("MSMARCO_QDRANT_RETRY_S", "0")
        if use == "restore":
            assert 0 == command("backup", "msmarco", "--out", "saved", *_store(server)).status
        if use == "index remove":
            assert 0 == command("index", "add", "year=integer", *_store(server)).status
        if use == "migrate rollback":
            words = ("--model", models[1], "--allow-worse")
            assert 0 == command("migrate", "reembed", *words, *_store(server)).status
        yield server


def _store(server: LoopbackServer) -> tuple[str, ...]:
    return ("--store", server.rest_url, "--transport", "rest")


def _run(server: LoopbackServer, use: str, models: tuple[str, str]) -> int:
    if use == "serve":
        return _open_sidecar(server, models)
    Path("passages.tsv").write_text("1\tlondon\n4\tparis\n")
    places = {"SOURCE": "passages.tsv", "OLD": models[0], "NEW": models[1]}
    words = [places.get(word, word) for word in _ARGUMENTS[use].split()]
    return command(*words, *_store(server)).status


def _open_sidecar(server: LoopbackServer, models: tuple[str, str]) -> int:
    """Open what the sidecar does, and write a batch as its worker does."""
    settings = SidecarSettings(store=server.rest_url, transport="rest", model=models[0])
    opened = Startup(settings, NamedModels(settings)).run(lambda opened: opened)
    with closing(opened):
        try:
            ingest_passages([Passage("4", "paris")], opened.writing, encoder=opened.encoder)
        except Exception:  # noqa: BLE001  # refused
            return 1
    return 0


def test_every_command_has_its_arguments() -> None:
    """The table and this file name the same commands."""
    assert _ARGUMENTS.keys() == _TABLE.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "use",
    [
        pytest.param(use, marks=[] if use in _QUICK else [pytest.mark.slow])
        for use in sorted(_TABLE)
    ],
)
def test_v10_a_key_with_these_rights_is_enough_and_with_fewer_is_not(
    place: LoopbackServer, use: str, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the server's rules of rights; the lesser key goes first, and changes nothing."""
    if use != "migrate rollback" or _TABLE[use] != "global `m`":
        monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", "less")
        if use not in ("migrate up", "migrate prune", "migrate link"):  # nothing to do is allowed
            assert 0 != _run(place, use, models)
    monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", "enough")
    assert 0 == _run(place, use, models)
