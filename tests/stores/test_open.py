"""From a DSN to a store: which engine it is, and what is refused before anything is made."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from os import PathLike
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest

from msmarco_qdrant.errors import (
    StoreCorruptError,
    StoreNotFoundError,
    StoreUnavailableError,
    UsageError,
)
from msmarco_qdrant.stores import Capabilities, Connection, check_creatable, open_store
from msmarco_qdrant.stores.edge.store import EdgeStore
from msmarco_qdrant.stores.server.store import ServerStore
from tests.contract.test_store import make_spec
from tests.loopback import LoopbackServer, Refused

HIDDEN = "hunter2"


# ---- which engine ----------------------------------------------------------------------------


@pytest.mark.parametrize("as_path", [False, True])
def test_a_path_is_a_directory_of_edge(tmp_path: Path, as_path: bool) -> None:
    """As a string or a path; it says by which it was opened."""
    dsn: str | PathLike[str] = tmp_path / "store" if as_path else str(tmp_path / "store")
    with closing(open_store(dsn, create=True)) as store:
        assert isinstance(store, EdgeStore)
        assert str(dsn) == store.dsn
        assert ("Edge", True, False) == (
            store.capabilities.engine,
            store.capabilities.ann,
            store.capabilities.multi_process,
        )
    assert (tmp_path / "store" / "store.json").is_file()


@pytest.mark.parametrize("create", [False, True])
def test_a_url_is_a_server(create: bool) -> None:
    """Which is there or not: nothing is made of it."""
    with LoopbackServer() as server, closing(open_store(server.url, create=create)) as store:
        assert isinstance(store, ServerStore)
        assert server.url == store.dsn
        assert ("Server", True, True) == (
            store.capabilities.engine,
            store.capabilities.ann,
            store.capabilities.multi_process,
        )


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://localhost:6333/"])
def test_a_url_of_http_is_asked_at_the_grpc_port(url: str) -> None:
    """The port of the connection; at the default port of REST nobody answers here."""
    with LoopbackServer() as server:
        connection = Connection(grpc_port=server.port)
        with closing(open_store(url, connection=connection)) as store:
            assert ({}, url) == (store.aliases(), store.dsn)


def test_the_memory_is_a_store_of_its_own() -> None:
    """Each is new and empty, and ends with its handle."""
    with (
        closing(open_store(":memory:", create=True)) as one,
        closing(open_store(":memory:", create=True)) as other,
    ):
        assert isinstance(one, ServerStore)
        assert ":memory:" == one.dsn
        assert Capabilities("Memory", admin=True, migration_locks=True) == one.capabilities
        one.create_collection("things__0001", make_spec(one))
        one.set_alias("things", "things__0001")
        assert ({"things": "things__0001"}, {}) == (one.aliases(), other.aliases())


# ---- what is refused -------------------------------------------------------------------------


def test_an_empty_memory_is_not_opened_by_mistake() -> None:
    """The message says how to make one and hand it on."""
    with pytest.raises(StoreNotFoundError, match=r"open_store\(':memory:', create=True\)"):
        open_store(":memory:")


def test_a_missing_directory_is_not_made_by_opening(tmp_path: Path) -> None:
    """Looking makes nothing."""
    with pytest.raises(StoreNotFoundError, match="no store at"):
        open_store(tmp_path / "missing")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("dsn", ["", "a\0b", "\0"])
def test_what_is_no_place_is_refused(dsn: str, create: bool) -> None:
    """Neither an empty name, nor one that no system knows."""
    with pytest.raises(UsageError, match="must be a directory or a URL, got"):
        open_store(dsn, create=create)
    with pytest.raises(UsageError, match="must be a directory or a URL"):
        check_creatable(dsn)


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{HIDDEN}@host:6333",
        f"http://host?api-key={HIDDEN}",
        f"http://host/%20{HIDDEN}",
        f"grpc://host:{HIDDEN}",
        f"ftp://{HIDDEN}",
        f"http://me:{HIDDEN}@host\0",
    ],
)
def test_a_url_with_a_secret_is_refused_before_anything_is_asked(url: str) -> None:
    """Whoever looks first, and the message does not repeat it."""
    for call in (lambda: open_store(url), lambda: check_creatable(url)):
        with pytest.raises(UsageError) as caught:
            call()
        assert HIDDEN not in repr(caught.value)


def test_a_server_that_is_not_there_is_told() -> None:
    """With what to look at."""
    with LoopbackServer() as server:
        url = server.url
    with pytest.raises(StoreUnavailableError, match="nothing listens on the port"):
        open_store(url, connection=Connection(retry_s=0))


def test_opening_is_tried_for_some_seconds_only() -> None:
    """Whoever has a wrong address should not wait for as long as a job that runs."""
    later = Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=6)
    with LoopbackServer() as server:
        server.faults.inject(later, "HealthCheck")
        with pytest.raises(StoreUnavailableError, match="try again later"):
            open_store(server.url, connection=Connection(retry_s=7200))
        assert 1 == server.requests.count()


# ---- what could be made ----------------------------------------------------------------------


def test_a_store_that_could_be_made_is_not_made(tmp_path: Path) -> None:
    """Neither in a directory nor on a server, which is not asked."""
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "new" / "store", tmp_path / "empty", str(tmp_path / "empty")):
        check_creatable(place)
    assert ["empty"] == [path.name for path in tmp_path.rglob("*")]
    with LoopbackServer() as server:
        check_creatable(server.url)
        check_creatable("https://nowhere.invalid")
        assert 0 == server.requests.count()


def test_a_directory_of_something_else_could_not(tmp_path: Path) -> None:
    """What lies there is named, and stays."""
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(StoreCorruptError, match=r"thesis\.txt"):
        check_creatable(tmp_path)
    with pytest.raises(StoreCorruptError, match=r"thesis\.txt"):
        open_store(tmp_path, create=True)
    assert ["thesis.txt"] == [path.name for path in tmp_path.iterdir()]


def test_a_file_could_not(tmp_path: Path) -> None:
    """Neither itself nor what would be below it."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreUnavailableError, match="is a file"):
            check_creatable(place)


def test_the_memory_could_but_makes_no_sense() -> None:
    """What goes in would be gone at once."""
    with pytest.raises(UsageError, match="ends with its handle"):
        check_creatable(":memory:")


# ---- what it costs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "unwanted"), [("store", {"qdrant_client", "grpc"}), (":memory:", {"qdrant_edge"})]
)
def test_an_engine_is_imported_when_it_is_used(dsn: str, unwanted: set[str]) -> None:
    """Edge needs no client of a server, and a server no Edge."""
    program = """
import sys
import msmarco_qdrant.stores
assert not {"qdrant_client", "grpc", "qdrant_edge", "numpy", "tenacity"} & set(sys.modules)
store = msmarco_qdrant.stores.open_store(sys.argv[1], create=True)
store.aliases()
print(*(name for name in sys.argv[2:] if name in sys.modules))
store.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, dsn, *unwanted],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert [] == done.stdout.split()


@pytest.mark.parametrize(
    "dsn", ["localhost:6333", "qdrant.example.com:6334/", "http:/host", "https:host", "grpc:host"]
)
def test_an_address_without_its_scheme_is_no_directory(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, not made; whoever wants such a directory writes it with a dot."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="http://host:port"):
        open_store(dsn, create=True)
    assert [] == list(tmp_path.iterdir())
    open_store("./localhost:6333", create=True).close()


CALLS = {
    "open_store(':memory:', create=True).close()": "done",
    "open_store('http://localhost:1', connection=once)": "StoreUnavailableError",
    "open_store('place', create=True)": "UnsupportedError",
    "check_creatable('place')": "UnsupportedError",
    "main(['models'])": "done",
    "main(['serve', '--help'])": "done",
}


def test_only_a_directory_needs_file_locks(tmp_path: Path) -> None:
    """Windows has no `fcntl`, and may have no Qdrant Edge: all but a directory works there."""
    program = f"""
import sys
sys.modules["fcntl"] = sys.modules["qdrant_edge"] = None
import msmarco_qdrant.migration, msmarco_qdrant.operations, msmarco_qdrant.testing
from msmarco_qdrant.cli.app import main
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.stores import Connection, check_creatable, open_store
once = Connection(retry_s=0)
for call in {list(CALLS)}:
    try:
        eval(call)
        print("done", file=sys.stderr)
    except MsmarcoQdrantError as exc:
        print(type(exc).__name__, *str(exc).splitlines(), file=sys.stderr)
"""
    ended = subprocess.run(  # our own program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    lines = ended.stderr.splitlines()
    assert list(CALLS.values()) == [line.partition(" ")[0] for line in lines]
    for line in lines:
        assert ("POSIX file locks" in line) == line.startswith("UnsupportedError")
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize("dsn", ["http://localhost:1", "directory"])
def test_another_type_of_connection_is_refused_without_its_value(tmp_path: Path, dsn: str) -> None:
    """It may have the API key; nothing is created."""
    path = dsn if "//" in dsn else str(tmp_path / dsn)
    for act in (open_store, check_creatable):
        with pytest.raises(UsageError, match=r"must be a Connection, .*, got a dict$"):
            act(path, connection={"api_key": HIDDEN})  # type: ignore[arg-type]
    assert [] == [*tmp_path.iterdir()]
