"""The API key is nowhere to be seen: in no log at debug level, no output, no error, no repr.

A `Watch` listens to every logger there is, of this package and of every library, and keeps what it
is shown of objects and errors. What is printed is caught from the file descriptors, since gRPC
writes there by itself. What it does not look at are the local variables of frames: those of
qdrant-client and gRPC hold the headers of a request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import which

import grpc  # type: ignore[import-untyped]
import pytest

from msmarco_qdrant.cli.app import cli, main
from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.collection.describe import describe_store
from msmarco_qdrant.collection.passages import delete_passages, export_passages, get_passages
from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.encode.api import encode_corpus
from msmarco_qdrant.errors import (
    MsmarcoQdrantError,
    StoreAccessError,
    StoreUnavailableError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.settings import Settings, load_settings
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.preview import preview_sources
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import Connection, Store, open_async_collection, open_store
from msmarco_qdrant.stores.server.collection import ServerCollection
from msmarco_qdrant.stores.server.store import ServerStore
from msmarco_qdrant.testing import HashingEncoder
from tests.contract.test_store import make_batch, make_spec
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.loopback import Cut, Fault, LoopbackServer, LostAnswer, Refused
from tests.vectors import write_folder

KEY = "key-0c7e-SESAME-91af"
WRONG = "wrong-4b1d-SESAME-77c2"
MARK = "SESAME"
"""In either key and nowhere else."""


class Watch(logging.Handler):
    """Keeps everything that could show a secret, as text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.kept: list[str] = []
        self.loggers: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record: the message, its arguments, its traceback, and all that came with it."""
        self.loggers.add(record.name)
        self.kept += [logging.Formatter().format(record), repr(vars(record))]

    def look_at(self, *objects: object) -> None:
        """Keep how objects show themselves."""
        self.kept += [f"{one!r} {one!s} {[one]} {(one,)}" for one in objects]

    def failed(self, call: Callable[[], object]) -> MsmarcoQdrantError:
        """Keep the error that a call ends in, and those behind it."""
        with pytest.raises(MsmarcoQdrantError) as caught:
            call()
        self.look_at_error(caught.value)
        return caught.value

    def look_at_error(self, error: BaseException) -> None:
        """Keep an error with its traceback, and those behind it."""
        self.kept.append("".join(traceback.format_exception(error)))
        behind: BaseException | None = error
        while behind is not None:
            self.look_at(behind, behind.args, getattr(behind, "__notes__", ()))
            hidden = behind.__suppress_context__
            behind = behind.__cause__ or (None if hidden else behind.__context__)

    def seen(self, mark: str = MARK) -> list[str]:
        """What holds the mark of a secret."""
        return [text for text in self.kept if mark in text]


@pytest.fixture
def watch(capfd: pytest.CaptureFixture[str]) -> Iterator[Watch]:
    """Listens at debug level; afterwards nothing it kept, nor anything printed, holds a key."""
    handler, root = Watch(), logging.getLogger()
    found = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    levels = {logger: logger.level for logger in (root, *found)}
    deaf = [logger for logger in found if not logger.propagate]
    for logger in levels:
        logger.setLevel(logging.DEBUG)
    for logger in (root, *deaf):
        logger.addHandler(handler)
    with warnings.catch_warnings(action="default"):
        logging.captureWarnings(capture=True)
        try:
            yield handler
        finally:
            logging.captureWarnings(capture=False)
            for logger in (root, *deaf):
                logger.removeHandler(handler)
            for logger, level in levels.items():
                logger.setLevel(level)
    handler.kept += list(capfd.readouterr())
    assert [] == handler.seen()


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A server that wants the key."""
    with LoopbackServer(KEY) as running:
        yield running


@pytest.fixture
def connection() -> Connection:
    """The right key, and long retries."""
    return Connection(api_key=KEY, retry_s=60)


# ---- the watch itself ------------------------------------------------------------------------


def careless(logger: logging.Logger) -> None:
    """Show the key in every way that a record has."""
    logger.debug("sent %s", {"api-key": KEY})
    logger.info("the key is %s", KEY)
    logger.warning("sent", extra={"metadata": (("api-key", KEY),)})
    try:
        _ = {"another": 1}[KEY]
    except KeyError:
        logger.exception("failed")


def test_watch_finds_the_key() -> None:
    """In records, objects and errors: a watch that hears nothing would prove nothing."""
    watch, logger = Watch(), logging.getLogger("somebody.else")
    logger.addHandler(watch)
    logger.setLevel(logging.DEBUG)
    careless(logger)
    logger.removeHandler(watch)
    logger.setLevel(logging.NOTSET)
    assert [True, True, True, True, False, True, True, True] == [
        MARK in text for text in watch.kept
    ]
    watch.kept.clear()
    watch.look_at([KEY], KEY.encode(), Connection(api_key=KEY))
    error = MsmarcoQdrantError("harmless")
    error.__context__ = ValueError(KEY)
    watch.look_at_error(error)
    assert [True, True, False, True] == [MARK in text for text in watch.kept[:4]]


# ---- the life of a collection ----------------------------------------------------------------


def some(*numbers: int) -> list[Passage]:
    """Passages about cities."""
    return [Passage(str(number), f"city number {number}", {"n": number}) for number in numbers]


def live(
    url: str, connection: Connection, encoder: HashingEncoder, watch: Watch, folder: Path
) -> None:
    """Everything that can be done with a collection on a server, from its creation to its end."""
    fill = some(*range(300))
    report = ingest_passages(fill, url, encoder=encoder, connection=connection, window=100)
    with (
        closing(open_store(url, connection=connection)) as store,
        SearchClient.open(url, encoder=encoder, connection=connection) as client,
    ):
        policy = PrunePolicy(max_share=1.0)
        watch.look_at(report, ingest_passages(fill[:200], store, encoder=encoder, prune=policy))
        watch.look_at(store, store.aliases(), store.metadata("msmarco"), store.lock())
        watch.look_at(store.collection("msmarco"), describe_store(store), client, client.metadata)
        watch.look_at(*client.search("city", limit=3), *client.search_many(["city", "number"]))
        look_inside(store, watch)
        asyncio.run(search_async(url, connection, encoder, watch), debug=True)
        watch.look_at(get_passages(url, ["1", "2"], connection=connection))
        watch.look_at(delete_passages(url, ["1", "2"], connection=connection))
        watch.look_at(export_passages(url, folder / "all.jsonl", connection=connection))
        watch.kept.append((folder / "all.jsonl").read_text())
        store.collection("msmarco").optimize()
        watch.failed(lambda: store.collection("nope"))
        watch.failed(lambda: store.create_collection("msmarco__0001", make_spec(store)))
        watch.failed(lambda: store.collection("msmarco").upsert(make_batch([1], [[1, 0, 0]])))
        watch.look_at(drop_collection(store, "msmarco"))
    watch.failed(store.aliases)


def look_inside(store: Store, watch: Watch) -> None:
    """The objects behind a store, qdrant-client's among them."""
    assert isinstance(store, ServerStore)
    collection = store.collection("msmarco")
    assert isinstance(collection, ServerCollection)
    link = store._server
    watch.look_at(link, link.client, link.client._client, link.retries, link.call)
    watch.look_at(store._connection, collection._connection, store._senders)
    watch.look_at(link.client.grpc_points, link.client.grpc_collections)


async def search_async(
    url: str, connection: Connection, encoder: HashingEncoder, watch: Watch
) -> None:
    """Search from an event loop; asyncio's own debugging is on."""
    client = await AsyncSearchClient.open(url, encoder=encoder, connection=connection)
    async with client:
        answers = await asyncio.gather(*(client.search(f"city {number}") for number in range(5)))
        watch.look_at(client, client.metadata, answers, *asyncio.all_tasks())
        watch.look_at(client._collection, open_async_collection(client._client.store, "msmarco"))
    with pytest.raises(MsmarcoQdrantError) as caught:
        await client.search("late")
    watch.look_at_error(caught.value)


def test_life_of_a_collection_does_not_show_the_key(
    watch: Watch,
    server: LoopbackServer,
    connection: Connection,
    encoder: HashingEncoder,
    tmp_path: Path,
) -> None:
    """Create, fill, search, read, remove, export, prune, index, drop."""
    watch.look_at(connection)
    live(server.url, connection, encoder, watch, tmp_path)
    assert {"asyncio", "grpc._cython.cygrpc"} & watch.loggers


@pytest.mark.slow
def test_retries_do_not_show_the_key(
    watch: Watch,
    server: LoopbackServer,
    connection: Connection,
    encoder: HashingEncoder,
    tmp_path: Path,
) -> None:
    """The same with every third call refused, cut or lost, and each logged."""
    faults: list[Fault] = [Refused(grpc.StatusCode.UNAVAILABLE), LostAnswer(), Cut()]
    server.faults.use(lambda _, number: faults[number // 3 % 3] if number % 3 == 0 else None)
    live(server.url, connection, encoder, watch, tmp_path)
    assert server.faults.count() > 10
    assert any("retrying" in text for text in watch.kept)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, marks=() if code.name == "UNAUTHENTICATED" else pytest.mark.slow)
        for code in grpc.StatusCode
        if code.name != "OK"
    ],
    ids=str,
)
def test_refused_requests_do_not_show_the_key(
    watch: Watch, server: LoopbackServer, connection: Connection, code: grpc.StatusCode
) -> None:
    """With any status of gRPC, while a store is opened and while it is used."""
    hasty = replace(connection, retry_s=0)
    with closing(open_store(server.url, connection=hasty)) as store:
        server.faults.inject(Refused(code), times=2)
        watch.failed(store.aliases)
        if code is not grpc.StatusCode.PERMISSION_DENIED:  # a limited key may open a store
            watch.failed(lambda: open_store(server.url, connection=hasty))
    server.faults.clear()
    server.faults.inject(Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=7))
    watch.failed(lambda: open_store(server.url, connection=hasty))


# ---- refused connections -----------------------------------------------------------------------


def test_wrong_key_is_not_shown(
    watch: Watch, server: LoopbackServer, encoder: HashingEncoder
) -> None:
    """In the errors of open, ingest, search and get."""
    wrong = Connection(api_key=WRONG)
    calls: list[Callable[[], object]] = [
        lambda: open_store(server.url, connection=wrong),
        lambda: ingest_passages(some(1), server.url, encoder=encoder, connection=wrong),
        lambda: SearchClient.open(server.url, encoder=encoder, connection=wrong),
        lambda: asyncio.run(
            AsyncSearchClient.open(server.url, encoder=encoder, connection=wrong), debug=True
        ),
        lambda: get_passages(server.url, ["1"], connection=wrong),
    ]
    assert [StoreAccessError] * 5 == [type(watch.failed(call)) for call in calls]


def test_closed_ports_and_invalid_urls_do_not_show_the_key(watch: Watch) -> None:
    """Also with the key inside the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    hasty = Connection(api_key=KEY, retry_s=0.2)
    error = watch.failed(lambda: open_store(f"grpc://127.0.0.1:{port}", connection=hasty))
    assert isinstance(error, StoreUnavailableError)
    watch.failed(lambda: open_store("http://[::1", connection=hasty))
    watch.failed(lambda: open_store(f"http://me:{KEY}@127.0.0.1:{port}", connection=hasty))
    watch.failed(lambda: open_store(f"http://127.0.0.1:{KEY}", connection=hasty))


def test_v11_rest_does_not_show_the_key(watch: Watch, server: LoopbackServer) -> None:
    """Not in what httpx logs, in an error of the server, or in one without an answer."""
    connection = Connection(api_key=KEY, retry_s=0, transport="rest")
    with closing(open_store(server.rest_url, connection=connection)) as store:
        watch.look_at(connection, store, store.aliases(), store.physical_names())
        watch.failed(lambda: store.drop_collection("missing"))
        for fault in (LostAnswer(), Refused(grpc.StatusCode.PERMISSION_DENIED)):
            server.faults.inject(fault, "Collections.List")
            watch.failed(store.physical_names)
    assert {"httpcore.http11", "httpx"} <= watch.loggers


def test_warning_of_an_unencrypted_connection_does_not_show_the_key(
    watch: Watch, server: LoopbackServer
) -> None:
    """The warning names the host."""
    connection = Connection(api_key=KEY, grpc_port=server.port)
    open_store("http://0.0.0.0", connection=connection).close()
    assert any("the API key is sent to 0.0.0.0" in text for text in watch.kept)


def test_tls_does_not_show_the_key(watch: Watch, tmp_path: Path) -> None:
    """With a trusted certificate, another one, and none."""
    openssl = which("openssl")
    if openssl is None:
        pytest.skip("no openssl program to make a certificate with")
    private, chain = tmp_path / "private.pem", tmp_path / "chain.pem"
    command = (
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout {private} -out {chain}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    hasty = Connection(api_key=KEY, retry_s=0)
    trusting = replace(hasty, tls_ca=chain)
    with (
        LoopbackServer(KEY, tls=(private.read_bytes(), chain.read_bytes())) as secure,
        LoopbackServer(KEY) as plain,
    ):
        with closing(open_store(secure.url, connection=trusting)) as store:
            watch.look_at(trusting, store, store.aliases())
        watch.failed(lambda: open_store(secure.url, connection=hasty))
        watch.failed(lambda: open_store(f"grpc://127.0.0.1:{secure.port}", connection=hasty))
        watch.failed(lambda: open_store(f"grpcs://127.0.0.1:{plain.port}", connection=trusting))
        watch.failed(
            lambda: open_store(secure.url, connection=replace(hasty, tls_ca=tmp_path / "none"))
        )


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}\0", f"{KEY}\u00fc", f"\udcff{KEY}"])
def test_invalid_key_is_not_shown(watch: Watch, key: str) -> None:
    """It is refused before gRPC gets it, whose errors contain it."""
    watch.failed(lambda: Connection(api_key=key))


# ---- settings --------------------------------------------------------------------------------


def test_settings_do_not_show_the_key(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid and invalid ones, from the environment and from the file."""
    monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", KEY)
    settings = load_settings({})
    assert KEY == settings.connection.api_key
    watch.look_at(settings, settings.connection, settings.model_dump(), Settings.model_fields)
    watch.look_at(settings.model_dump_json(), settings.model_dump(mode="json"))
    watch.failed(lambda: load_settings({"window": KEY}))
    monkeypatch.setenv("MSMARCO_QDRANT_RETRY_S", WRONG)
    watch.failed(lambda: load_settings({}))
    monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", f"{KEY}\udcff")
    watch.failed(lambda: load_settings({}))
    Path(".env").write_bytes(f"MSMARCO_QDRANT_API_KEY={KEY}\n".encode() + b"\xff")
    watch.failed(lambda: load_settings({}, Path(".env")))


# ---- the command line ------------------------------------------------------------------------


def arguments_of(folder: Path, *, use_model: bool) -> dict[str, Sequence[str]]:
    """The arguments of each command, in an order in which all succeed; with a model or vectors."""
    source: Sequence[str]
    if use_model:
        model = str(save_tiny(folder / "tiny", Recipe()))
        Path("passages.tsv").write_text("1\tlondon is a city\n2\tparis river\n", "utf-8")
        source, mode = ["passages.tsv", "--model", model], ["--model", model]
    else:
        vectors = write_folder(folder / "vectors", some(1, 2), HashingEncoder())
        source, mode = ["--vectors", str(vectors)], ["--mode", "bm25"]
    return {
        "ingest": source,
        "search": ["london", *mode],
        "get": ["1"],
        "collections": ["--json"],
        "info": [],
        "optimize": [],
        "migrate": ["status"],
        "export": ["all.jsonl"],
        "delete": ["2"],
        "drop": ["msmarco", "--yes"],
        "models": [],
        **({"quickstart": mode} if use_model else {}),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "in_file", "use_model"),
    [
        (KEY, False, False),
        (WRONG, False, False),
        pytest.param(KEY, True, True, marks=pytest.mark.slow),
        pytest.param(WRONG, False, True, marks=pytest.mark.slow),
    ],
)
def test_commands_do_not_show_the_key(
    watch: Watch,
    server: LoopbackServer,
    key: str,
    in_file: bool,
    use_model: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given arguments, commands succeed with the right key, and fail with a wrong one."""
    monkeypatch.setenv("MSMARCO_QDRANT_STORE", server.url)
    if in_file:
        Path(".env").write_text(f"MSMARCO_QDRANT_API_KEY={key}\n", "utf-8")
    else:
        monkeypatch.setenv("MSMARCO_QDRANT_API_KEY", key)
    given = arguments_of(tmp_path, use_model=use_model)
    needs_torch = () if use_model else ("quickstart", "serve")
    others = cli.commands.keys() - given.keys() - {*needs_torch}
    statuses = {}
    file = ["--env-file", ".env"] if in_file else []
    for name, arguments in {**given, **dict.fromkeys(sorted(others), ())}.items():
        before = len(watch.kept)
        statuses[name] = main([*file, name, *arguments])
        assert [] == [text for text in watch.kept[before:] if MARK in text]
    expected = dict.fromkeys(given, 0 if key == KEY else 1) | {"models": 0}
    assert expected.items() <= statuses.items()


@pytest.mark.parametrize("url", [f"s3://me:{KEY}@host/a", f"https://host/a?signature={KEY}"])
def test_urls_of_files_do_not_show_the_key(watch: Watch, url: str) -> None:
    """One with a password or a query is refused, wherever a path may be a URL."""
    Path("p.tsv").write_text("1\tone\n")
    encoder = HashingEncoder()
    calls: list[Callable[[], object]] = [
        lambda: Corpus(["p.tsv", url]),
        lambda: VectorShards(url),
        lambda: encode_corpus("p.tsv", url, encoder=encoder),
        lambda: ingest_passages(url, "store", encoder=encoder),
        lambda: preview_sources(["p.tsv", url]),
    ]
    assert [UsageError] * len(calls) == [type(watch.failed(call)) for call in calls]
    for arguments in (
        ["encode", "p.tsv", "--out", url],
        ["encode", url, "--out", "vectors"],
        ["ingest", url],
        ["ingest", url, "--dry-run"],
        ["ingest", "--vectors", url],
        ["ingest", "p.tsv", "--vectors", url],
    ):
        assert 0 != main(arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "arguments", "expected"),
    [
        (KEY, ["collections"], 0),
        pytest.param(KEY, ["search", "london"], 1, marks=pytest.mark.slow),
        pytest.param(WRONG, ["search", "london"], 1, marks=pytest.mark.slow),
        pytest.param(WRONG, ["search"], 2, marks=pytest.mark.slow),
    ],
)
def test_verbose_program_does_not_show_the_key(
    server: LoopbackServer, key: str, arguments: list[str], expected: int
) -> None:
    """Python in development mode, every warning shown, gRPC at debug level."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "msmarco_qdrant", *arguments],
        env={
            **os.environ,
            "MSMARCO_QDRANT_STORE": server.url,
            "MSMARCO_QDRANT_API_KEY": key,
            "PYTHONWARNINGS": "default",
            "GRPC_VERBOSITY": "debug",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert expected == done.returncode
    assert MARK not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
