"""What the store on a server adds of its own, over a real connection to the loopback server.

What every store promises is in `tests/contract`; here is what only a server has: keys, versions,
TLS, requests at once, neighbors, restarts, lost answers.
"""

from __future__ import annotations

import itertools
import logging
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]
import pytest
from qdrant_client import QdrantClient, models

from msmarco_qdrant import Passage, SearchClient, Text, ingest_passages
from msmarco_qdrant.collection.bulk import BulkMode
from msmarco_qdrant.core.collection_types import PointBatch, SettingsChange
from msmarco_qdrant.core.metadata_types import bulk_threshold
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    SchemaError,
    StoreAccessError,
    StoreCorruptError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from msmarco_qdrant.filters import Not as NotWords
from msmarco_qdrant.migrate.indexes import add_index
from msmarco_qdrant.stores import Collection, Connection, Store, open_store
from msmarco_qdrant.stores.server.store import ServerStore
from msmarco_qdrant.testing import HashingEncoder
from tests.conftest import ROOT
from tests.contract.test_store import UUID_ID, ask, make_batch, make_metadata, make_spec
from tests.loopback import Cut, Fault, LoopbackServer, LostAnswer, Refused, RequestLog, Slow
from tests.loopback.conftest import client_of

NAME = "things__0001"
API_KEY = "key-4f1c9d"
READING_KEY = "key-for-reading-7b2e"
PATIENT = Connection(retry_s=60)
AT_ONCE = Connection(retry_s=0)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
FOR_LONG = Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=3600)


@pytest.fixture
def store(server: LoopbackServer) -> Iterator[Store]:
    """A store on it."""
    with closing(open_store(server.url, connection=PATIENT)) as opened:
        yield opened


@pytest.fixture
def collection(store: Store, server: LoopbackServer) -> Collection:
    """An empty collection behind the name `things`; the record of requests begins after it."""
    made = make_things(store)
    made.spec()  # this also reads the limits of its strict mode, once
    server.requests.clear()
    return made


@pytest.fixture
def neighbor(server: LoopbackServer) -> Iterator[QdrantClient]:
    """Another application's client of the same server."""
    client = client_of(server)
    yield client
    client.close()


def make_things(store: Store) -> Collection:
    """An empty collection behind the name `things`."""
    store.create_collection(NAME, make_spec(store))
    store.put_metadata(NAME, make_metadata())
    store.set_alias("things", NAME)
    return store.collection("things")


def points(count: int) -> PointBatch:
    """So many points, with ids from 0."""
    return make_batch(range(count), [[1, 0, 0, number] for number in range(count)])


def stored(server: LoopbackServer, name: str = NAME) -> int:
    """How many points are stored, by the server's own account."""
    with server.inspect() as engine:
        return engine.count(name).count


class Failures(logging.Handler):
    """Hears of each attempt that failed and will be made again, before the wait for it.

    Attributes:
        told: What was said of them.
        react: What a test does when one is told, in the thread that it failed in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.react: Callable[[], object] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is said, and react."""
        self.told.append(record.getMessage())
        self.react()


@pytest.fixture
def failures() -> Iterator[Failures]:
    """Listens to the policy of trying again."""
    log, handler = logging.getLogger("msmarco_qdrant.stores.server.retry"), Failures()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)


@contextmanager
def in_thread(call: Callable[[], object]) -> Iterator[Future[object]]:
    """A call in a thread of its own, which has to end."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


def error_of(future: Future[Any]) -> BaseException | None:
    """The error that a call has ended with; it has to end."""
    return future.exception(timeout=60)


def senders() -> set[threading.Thread]:
    """The threads of any store's requests."""
    return {one for one in threading.enumerate() if one.name.startswith("msmarco-qdrant-send")}


@pytest.fixture
def senders_left() -> Callable[[], set[threading.Thread]]:
    """Tells which threads of requests were not there when the test began."""
    before = senders()
    return lambda: senders() - before


# ---- opening -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.16.0", "1.16", "1.20.1", "1.16.0-dev", "2.0.0", "10.1.0"])
def test_a_server_that_is_new_enough_is_accepted(version: str) -> None:
    """1.16 is the first that keeps metadata with a collection."""
    with LoopbackServer(version=version) as server, closing(open_store(server.url)) as store:
        assert {} == store.aliases()


@pytest.mark.parametrize(
    ("version", "is_refused"),
    [("1.19.0", True), ("1.16", True), ("1.19.1", False), ("1.20.0", False), ("2.0.0", False)],
)
def test_words_without_an_index_are_refused_by_an_older_server(
    version: str, is_refused: bool
) -> None:
    """By every read and by a delete: before 1.19.1 they would be found inside of others."""
    words = {"title": Text("sea")}
    calls: dict[str, Callable[[SearchClient], object]] = {
        "search": lambda client: client.search("sea", meta_filter=words),
        "not": lambda client: client.search("sea", meta_filter=NotWords(words)),
        "count": lambda client: client.count(meta_filter=words),
        "facets": lambda client: client.facets("kind", meta_filter=words),
        "scroll": lambda client: [*client.scroll(meta_filter=words)],
        "delete": lambda client: client.delete(meta_filter=words),
    }
    rows = [Passage("1", "sea", {"title": "the sea", "kind": "a"})]
    encoder = HashingEncoder()
    with LoopbackServer(version=version) as server, closing(open_store(server.url)) as store:
        ingest_passages(
            rows, store, encoder=encoder, payload_indexes={"kind": "keyword"}, optimize=False
        )
        client = SearchClient(store, "msmarco", encoder)
        for name, call in calls.items():
            if not is_refused:
                call(client)
                continue
            with pytest.raises(UsageError, match="Text on 'title' needs an index of kind") as error:
                call(client)
            assert "index add title=text" in str(error.value), name
        add_index(store, "msmarco", "title", "text")
        for call in calls.values():
            call(client)


@pytest.mark.parametrize("version", ["1.15.9", "1.9.0", "0.11.7", "1", "dev", "v1.16.0", ""])
def test_a_server_that_is_too_old_is_refused(version: str) -> None:
    """With what was found and what was expected; what tells no version is no such server."""
    with (
        LoopbackServer(version=version) as server,
        pytest.raises(StoreError, match=r"must be Qdrant 1\.16 or later") as caught,
    ):
        open_store(server.url)
    assert f"got {version or 'no version'} from" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "words"),
    [(None, "Must provide an API key"), ("wrong-1b9a", "Invalid API key or JWT")],
)
def test_a_missing_or_wrong_key_is_told_when_it_is_opened(key: str | None, words: str) -> None:
    """At once, with the server's words, what to set, and not the key."""
    with LoopbackServer(API_KEY) as server, pytest.raises(StoreAccessError, match=words) as caught:
        open_store(server.url, connection=Connection(api_key=key))
    assert "set MSMARCO_QDRANT_API_KEY" in str(caught.value)
    assert str(key) not in str(caught.value)


def test_a_key_for_reading_searches_and_writes_nothing() -> None:
    """Each kind of write is refused as a matter of access, and changes nothing."""
    with LoopbackServer(API_KEY, read_only_api_key=READING_KEY) as server, ExitStack() as stack:
        keys = (API_KEY, READING_KEY)
        owner, reader = (
            stack.enter_context(closing(open_store(server.url, connection=Connection(api_key=key))))
            for key in keys
        )
        make_things(owner).upsert(points(3))
        things = reader.collection("things")
        assert [0, 1, 2] == sorted(point.id for point in things.query([ask([1, 0, 0, 0])])[0])
        assert (3, make_metadata()) == (things.info().points, reader.metadata("things"))
        writes: list[Callable[[], object]] = [
            lambda: things.upsert(points(4)),
            lambda: things.delete([1], up_to_seq=2**62),
            lambda: things.replace_payloads([1], [{}]),
            lambda: reader.create_collection("other__0001", make_spec(reader)),
            lambda: reader.put_metadata("things", make_metadata("other")),
            lambda: reader.set_alias("other", NAME),
            lambda: reader.drop_collection(NAME),
        ]
        for write in writes:
            with pytest.raises(StoreAccessError, match="to a key with the permission for it"):
                write()
        assert (3, {"things": NAME}) == (stored(server), owner.aliases())


def test_a_key_over_plain_http_to_another_host_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the log, when it is opened, without the key; whatever is done with it then."""
    with LoopbackServer(API_KEY) as server:
        anywhere = f"http://0.0.0.0:{server.port}"  # this machine, but not by a name of loopback
        connection = Connection(api_key=API_KEY, grpc_port=server.port)
        with closing(open_store(anywhere, connection=connection)) as store:
            make_things(store).upsert(points(1))
    (warning,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert (
        "the API key is sent to 0.0.0.0 unencrypted: use https:// or grpcs://"
    ) == warning.getMessage()
    assert API_KEY not in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_key_within_this_machine_is_not_warned_of(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens there."""
    with LoopbackServer(API_KEY) as server:
        connection = Connection(api_key=API_KEY, grpc_port=server.port)
        open_store(f"http://{host}", connection=connection).close()
    assert [] == [one for one in caplog.records if one.levelno >= logging.WARNING]


# ---- TLS -----------------------------------------------------------------------------------


class Certificate(NamedTuple):
    """A certificate of 127.0.0.1 that nobody signed, and its key, as files."""

    key: Path
    chain: Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One that `openssl` makes."""
    openssl = which("openssl")
    if openssl is None:
        pytest.skip("no openssl program to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    made = Certificate(folder / "key.pem", folder / "chain.pem")
    command = (
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 "
        f"-keyout {made.key} -out {made.chain}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return made


@pytest.fixture
def secure(certificate: Certificate) -> Iterator[LoopbackServer]:
    """A server that speaks TLS and wants a key."""
    pair = (certificate.key.read_bytes(), certificate.chain.read_bytes())
    with LoopbackServer(API_KEY, tls=pair) as running:
        yield running


@pytest.mark.parametrize("scheme", ["grpcs://127.0.0.1:{}", "https://127.0.0.1"])
def test_a_certificate_of_ones_own_is_trusted_when_it_is_given(
    secure: LoopbackServer,
    certificate: Certificate,
    scheme: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everything works, and nothing is warned of: the key is encrypted."""
    connection = Connection(api_key=API_KEY, grpc_port=secure.port, tls_ca=certificate.chain)
    with closing(open_store(scheme.format(secure.port), connection=connection)) as store:
        make_things(store).upsert(points(300))
    assert 300 == stored(secure)
    assert [] == [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_v11_certificates_over_rest(secure: LoopbackServer, certificate: Certificate) -> None:
    """The setting is that of gRPC; without it, or with TLS on one side only, it is told."""
    by_rest = replace(AT_ONCE, api_key=API_KEY, transport="rest")
    trusting = replace(by_rest, tls_ca=certificate.chain)
    with closing(open_store(secure.rest_url, connection=trusting)) as store:
        make_things(store).upsert(points(30))
    assert 30 == stored(secure)
    with pytest.raises(StoreUnavailableError, match="set MSMARCO_QDRANT_TLS_CA"):
        open_store(secure.rest_url, connection=by_rest)
    with pytest.raises(StoreUnavailableError, match="expects TLS"):
        open_store(secure.rest_url.replace("https", "http"), connection=by_rest)
    with LoopbackServer() as plain, pytest.raises(StoreUnavailableError) as caught:
        open_store(plain.rest_url.replace("http", "https"), connection=trusting)
    assert "http:// for Qdrant without TLS" in str(caught.value)


def test_a_certificate_that_nobody_signed_is_refused(secure: LoopbackServer) -> None:
    """The message says which setting would make it trusted."""
    with pytest.raises(StoreUnavailableError, match="set MSMARCO_QDRANT_TLS_CA") as caught:
        open_store(secure.url, connection=replace(AT_ONCE, api_key=API_KEY))
    assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value)


def test_a_certificate_of_another_host_is_refused(
    secure: LoopbackServer, certificate: Certificate
) -> None:
    """Trusted or not: it says 127.0.0.1."""
    connection = replace(AT_ONCE, grpc_port=secure.port, tls_ca=certificate.chain)
    with pytest.raises(StoreUnavailableError, match="use the host name of the certificate"):
        open_store("https://localhost", connection=connection)


def test_certificates_that_are_none_are_refused(secure: LoopbackServer, tmp_path: Path) -> None:
    """A file of something else."""
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    with pytest.raises(StoreUnavailableError, match="set MSMARCO_QDRANT_TLS_CA"):
        open_store(secure.url, connection=replace(AT_ONCE, tls_ca=junk))


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.pem", "No such file or directory"), ("", "Is a directory")]
)
def test_certificates_that_cannot_be_read_are_told(name: str, reason: str, tmp_path: Path) -> None:
    """Before anything is connected to."""
    connection = Connection(tls_ca=tmp_path / name)
    with pytest.raises(StoreUnavailableError, match=f"cannot be read: {reason}") as caught:
        open_store("https://127.0.0.1", connection=connection)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("speaks_tls", "scheme", "step"),
    [(True, "grpc", "the port does not answer gRPC|expects TLS"), (False, "grpcs", "use grpc://")],
)
def test_tls_on_one_side_only_is_told(
    certificate: Certificate, speaks_tls: bool, scheme: str, step: str
) -> None:
    """What listens is not what the URL says."""
    pair = (certificate.key.read_bytes(), certificate.chain.read_bytes())
    with (
        LoopbackServer(tls=pair if speaks_tls else None) as server,
        pytest.raises(StoreUnavailableError, match=step),
    ):
        open_store(f"{scheme}://127.0.0.1:{server.port}", connection=AT_ONCE)


# ---- neighbors ----------------------------------------------------------------------------


def test_an_alias_of_another_application_is_neither_listed_nor_moved(
    store: Store, neighbor: QdrantClient
) -> None:
    """It points at a collection of another form of name."""
    vectors = models.VectorParams(size=2, distance=models.Distance.DOT)
    neighbor.create_collection("photos", vectors_config=vectors)
    create = models.CreateAlias(collection_name="photos", alias_name="things")
    neighbor.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    store.create_collection(NAME, make_spec(store))
    assert {} == store.aliases()
    with pytest.raises(SchemaError, match=r"is an alias of photos in .*another program"):
        store.collection("things")
    with pytest.raises(SchemaError, match="'things' is an alias of photos in"):
        store.set_alias("things", NAME)
    store.drop_collection(NAME)
    (alias,) = neighbor.get_aliases().aliases
    assert ("things", "photos") == (alias.alias_name, alias.collection_name)


def foreign_collection(neighbor: QdrantClient, name: str) -> models.CollectionInfo:
    """A collection of another application with two points; what it is."""
    vectors = models.VectorParams(size=2, distance=models.Distance.EUCLID)
    neighbor.create_collection(name, vectors_config=vectors)
    made = [models.PointStruct(id=number, vector=[1.0, 2.0], payload={}) for number in (1, 2)]
    neighbor.upsert(name, made)
    return neighbor.get_collection(name)


def test_a_foreign_collection_of_that_name_is_refused(store: Store, neighbor: QdrantClient) -> None:
    """Whatever is tried, it is as it was."""
    before = [foreign_collection(neighbor, name) for name in ("things", NAME)]
    with pytest.raises(SchemaError, match=f"a collection '{NAME}' without an alias exists"):
        store.create_collection(NAME, make_spec(store))
    with pytest.raises(SchemaError, match="already exists"):  # an alias cannot have its name
        store.set_alias("things", NAME)
    for name in ("things", NAME):
        with pytest.raises(StoreCorruptError, match="another program"):
            store.metadata(name)
        with pytest.raises(StoreCorruptError, match="was not created by msmarco-qdrant"):
            store.collection(name).info()
        with pytest.raises(SchemaError, match="Not existing vector name"):
            store.collection(name).upsert(points(1))
    assert before == [neighbor.get_collection(name) for name in ("things", NAME)]
    assert {} == store.aliases()


def test_the_bulk_mode_of_an_earlier_version_is_ended(store: Store, neighbor: QdrantClient) -> None:
    """It recorded the former threshold as a number: of an ingest that has ended."""
    make_things(store)
    neighbor.update_collection("things", metadata={"msmarco_qdrant_bulk_threshold_kb": 777})
    store.admin_collection("things").alter(SettingsChange(indexing_threshold_kb=0))
    assert 777 == bulk_threshold(store.bulk_holders("things"))
    assert BulkMode(store, "things").try_end()
    assert 777 == store.admin_collection("things").optimizers().indexing_threshold_kb
    assert {} == store.bulk_holders("things")


def test_metadata_of_others_stay(store: Store, neighbor: QdrantClient) -> None:
    """Ours are under a key of their own."""
    make_things(store)
    neighbor.update_collection("things", metadata={"owner": "search team"})
    store.put_metadata("things", make_metadata("another"))
    kept = neighbor.get_collection("things").config.metadata
    assert kept is not None
    assert {"owner", "msmarco_qdrant"} == set(kept)
    assert make_metadata("another") == store.metadata("things")


# ---- creating --------------------------------------------------------------------------------


def before_call(store: Store, number: int, other: Callable[[], object]) -> None:
    """Let another process act just before a store's call of that number, counted from 0."""
    assert isinstance(store, ServerStore)
    call, numbers = store._server.call, itertools.count()

    def interrupted(*args: Any, **options: Any) -> Any:
        if next(numbers) == number:
            other()
        return call(*args, **options)

    store._server.call = interrupted  # type: ignore[method-assign]


def test_two_creators_at_once_make_one_collection(server: LoopbackServer) -> None:
    """Four threads with a store each: no error, one collection with its index."""
    start = threading.Barrier(4)

    def create(store: Store) -> None:
        start.wait(60)
        store.create_collection(NAME, make_spec(store))
        store.put_metadata(NAME, make_metadata())

    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        stores = [stack.enter_context(closing(open_store(server.url))) for _ in range(4)]
        futures = [pool.submit(create, store) for store in stores]
        assert [None] * 4 == [error_of(future) for future in futures]
        for store in stores:
            store.set_alias("things", NAME)
        assert {"things": NAME} == stores[0].aliases()
        assert make_spec(stores[0]) == stores[0].collection("things").info().spec


@pytest.mark.parametrize("number", range(4))
def test_another_may_create_it_at_any_moment(server: LoopbackServer, number: int) -> None:
    """Before each of our calls, or after the last: what it made is taken over."""
    with (
        closing(open_store(server.url)) as ours,
        closing(open_store(server.url)) as theirs,
    ):
        before_call(ours, number, lambda: theirs.create_collection(NAME, make_spec(theirs)))
        ours.create_collection(NAME, make_spec(ours))
        ours.put_metadata(NAME, make_metadata())  # the fourth call, and more
        assert make_spec(ours) == theirs.collection(NAME).info().spec


@pytest.mark.parametrize("number", range(3))
def test_a_name_whose_new_collection_vanishes_keeps_its_old_one(
    server: LoopbackServer, number: int
) -> None:
    """Before each call of a move: it is one action, which is done or refused as a whole."""
    with (
        closing(open_store(server.url)) as ours,
        closing(open_store(server.url)) as theirs,
    ):
        make_things(ours)
        ours.create_collection("things__0002", make_spec(ours))
        before_call(ours, number, lambda: theirs.drop_collection("things__0002"))
        with pytest.raises(CollectionNotFoundError):
            ours.set_alias("things", "things__0002")
        assert {"things": NAME} == ours.aliases()


@pytest.mark.parametrize("number", range(3))
def test_another_may_finish_it_at_any_moment(server: LoopbackServer, number: int) -> None:
    """Name and points of the other are kept, whether the second creation is refused or not."""

    def finish() -> None:
        make_things(theirs).upsert(points(5))

    with (
        closing(open_store(server.url)) as ours,
        closing(open_store(server.url)) as theirs,
    ):
        before_call(ours, number, finish)
        if number < 2:
            with pytest.raises(SchemaError, match="already"):
                ours.create_collection(NAME, make_spec(ours))
        else:
            ours.create_collection(NAME, make_spec(ours))
        assert (5, {"things": NAME}) == (ours.collection("things").info().points, ours.aliases())


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(LostAnswer(), id="cut answer"),
        pytest.param(LostAnswer(UNAVAILABLE), id="lost answer", marks=pytest.mark.slow),
        pytest.param(Refused(UNAVAILABLE), id="refused", marks=pytest.mark.slow),
        pytest.param(Cut(), id="cut request", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "rpc",
    [
        "Create",
        "CreateFieldIndex",
        "Collections.Update",
        "UpdateAliases",
        "Upsert",
        "UpdateBatch",
        "Points.Delete",
        "Collections.Delete",
    ],
)
def test_any_write_may_fail_for_a_moment(server: LoopbackServer, rpc: str, fault: Fault) -> None:
    """Whether it was applied or not: done again, it has the same outcome."""
    server.faults.inject(fault, rpc)
    with closing(open_store(server.url, connection=PATIENT)) as store:
        things = make_things(store)
        store.create_collection("things__0002", make_spec(store))
        things.upsert(make_batch([1, 2, UUID_ID], [[1, 0, 0, 0]] * 3))
        things.replace_payloads([1], [{"pid": "new"}])
        things.delete([2], up_to_seq=2**62)
        store.drop_collection("things__0002")
        assert (1, 0) == (server.faults.count(), server.faults.pending)
        assert {1: {"pid": "new"}, UUID_ID: {"pid": str(UUID_ID)}} == things.retrieve(
            [1, 2, UUID_ID], ["pid"]
        )
        assert (make_spec(store), 2) == (things.info().spec, things.info().points)
        assert make_metadata() == store.metadata("things")
        assert {"things": NAME} == store.aliases()
        with pytest.raises(CollectionNotFoundError):
            store.collection("things__0002")


def test_a_collection_is_made_of_its_plan(store: Store, server: LoopbackServer) -> None:
    """Quantized in memory, vectors on disk; the index is built before any data comes."""
    make_things(store)
    (create,) = server.requests.of("Create")
    (params,) = create.vectors_config.params_map.map.values()
    (index,) = server.requests.of("CreateFieldIndex")
    assert (True, True) == (params.on_disk, params.quantization_config.scalar.always_ram)
    assert (8, 32) == (params.hnsw_config.m, params.hnsw_config.ef_construct)
    assert ("seq", True) == (index.field_name, index.wait)


# ---- writing -------------------------------------------------------------------------------


def test_every_write_waits_until_it_is_durable(
    collection: Collection, server: LoopbackServer
) -> None:
    """Points, payloads, removals: `flush` has nothing left to do, and asks nothing."""
    collection.upsert(points(3))
    collection.replace_payloads([1], [{"pid": "new"}])
    collection.delete([2], up_to_seq=2**62)
    assert {"Points.Upsert", "Points.UpdateBatch", "Points.Delete"} == {
        rpc for rpc, _ in server.requests
    }
    assert [True] * 3 == [message.wait for _, message in server.requests]
    collection.flush()
    assert 3 == server.requests.count()


def test_writes_are_cut_as_set(server: LoopbackServer) -> None:
    """By points and by bytes; payloads by points, ids a thousand at a time."""
    with closing(
        open_store(server.url, connection=Connection(batch_points=10, batch_bytes=100_000))
    ) as store:
        things = make_things(store)
        things.upsert(points(25))
        long = make_batch(range(25, 27), [[1, 0, 0, 0]] * 2, text="x" * 90_000)
        things.upsert(long)
        things.replace_payloads(range(25), [{"pid": str(number)} for number in range(25)])
        assert 25 == len(things.retrieve(range(2500), ["pid"])) - 2
        things.delete(range(2500), up_to_seq=2**62)
    upserts = [len(one.points) for one in server.requests.of("Upsert")]
    assert ([5, 10, 10], [1, 1]) == (sorted(upserts[:3]), upserts[3:])
    assert [10, 10, 5] == [len(one.operations) for one in server.requests.of("UpdateBatch")]
    assert [1000, 1000, 500] == [len(one.ids) for one in server.requests.of("Points.Get")]
    assert [1000, 1000, 500] == [
        len(one.points.filter.must[0].has_id.has_id) for one in server.requests.of("Points.Delete")
    ]


class Meeting(RequestLog):
    """Holds every upsert until so many of them are there at once.

    Attributes:
        most: The most that were there at once.
    """

    def __init__(self, parties: int) -> None:
        super().__init__()
        self.most = 0
        self._here = 0
        self._count = threading.Lock()
        self._barrier = threading.Barrier(parties)

    def add(self, rpc: str, message: Any) -> None:
        """Keep a call, and hold it if it is an upsert."""
        super().add(rpc, message)
        if rpc != "Points.Upsert":
            return
        with self._count:
            self._here += 1
            self.most = max(self.most, self._here)
        self._barrier.wait(60)
        with self._count:
            self._here -= 1


@pytest.mark.parametrize("in_flight", [1, 2, 4])
@pytest.mark.parametrize("writers", [1, 2])
def test_requests_are_under_way_together(in_flight: int, writers: int) -> None:
    """As many as set and never more, however many threads write."""
    server = LoopbackServer()
    server.requests = meeting = Meeting(in_flight)
    connection = Connection(batch_points=10, in_flight=in_flight)
    with (
        server,
        closing(open_store(server.url, connection=connection)) as store,
        ThreadPoolExecutor(writers) as pool,
    ):
        things = make_things(store)
        futures = [pool.submit(things.upsert, points(80)) for _ in range(writers)]
        assert [None] * writers == [error_of(future) for future in futures]
        assert (80, 8 * writers) == (stored(server), server.requests.count("Upsert"))
        assert in_flight == meeting.most


def test_an_error_of_one_request_surfaces(
    server: LoopbackServer, senders_left: Callable[[], set[threading.Thread]]
) -> None:
    """When none is under way any more, and the store goes on."""
    connection = Connection(batch_points=1, in_flight=3)
    with closing(open_store(server.url, connection=connection)) as store:
        things = make_things(store)
        server.faults.inject(Slow(0.001), "Upsert", times=2)
        server.faults.inject(Refused(grpc.StatusCode.PERMISSION_DENIED), "Upsert")
        with pytest.raises(StoreAccessError, match="writing points in"):
            things.upsert(points(50))
        sent = server.requests.count("Upsert")
        assert sent - 1 == stored(server)  # none is still being written
        things.upsert(points(50))
        assert (50, sent + 50) == (stored(server), server.requests.count("Upsert"))
    assert set() == senders_left()


def test_a_point_that_cannot_be_sent_leaves_nothing_under_way(server: LoopbackServer) -> None:
    """The requests before it are answered when the error comes."""
    connection = Connection(batch_points=1, in_flight=4)
    with closing(open_store(server.url, connection=connection)) as store:
        things = make_things(store)
        batch = points(3)
        server.faults.inject(Slow(0.05), "Upsert", times=2)
        batch.payloads[2]["meta"] = {"number": 2**63}
        with pytest.raises(ValueError, match="out of range"):
            things.upsert(batch)
        assert 2 == stored(server)


def test_a_write_that_takes_too_long_is_repeated(server: LoopbackServer) -> None:
    """The server may have applied it: the same points twice are the same points."""
    with closing(open_store(server.url, connection=Connection(timeout_s=0.2, retry_s=60))) as store:
        things = make_things(store)
        server.faults.inject(Slow(600), "Upsert")
        things.upsert(points(10))
        server.settle()
        assert (10, 2) == (stored(server), server.requests.count("Upsert"))


# ---- reading ---------------------------------------------------------------------------------


def test_counts_are_exact(collection: Collection, server: LoopbackServer) -> None:
    """Not the estimate that a server's state holds."""
    collection.upsert(points(7))
    assert 7 == collection.info().points
    assert [True] == [one.exact for one in server.requests.of("Count")]


@pytest.mark.parametrize(
    ("status", "expected"),
    [("green", "ready"), ("yellow", "building"), ("grey", "paused"), ("red", "failed")],
)
def test_a_state_is_told_in_words_of_ours(
    collection: Collection, server: LoopbackServer, status: str, expected: str
) -> None:
    """With the vectors that are indexed."""
    server.set_status(NAME, status, indexed_vectors_count=42)
    assert (expected, 42) == (collection.info().state, collection.info().indexed)


def test_a_scan_reads_pages(collection: Collection, server: LoopbackServer) -> None:
    """A thousand points each, without vectors, and no more pages than are taken."""
    collection.upsert(points(2500))
    seen = collection.scan(["pid"])
    assert (0, 0) == (next(seen)[0], server.requests.of("Scroll")[0].offset.num)
    assert 1 == server.requests.count("Scroll")
    assert list(range(1, 2500)) == [id_ for id_, _ in seen]
    assert [1000, 1000, 1000] == [one.limit for one in server.requests.of("Scroll")]
    assert not any(one.with_vectors.enable for one in server.requests.of("Scroll"))


@pytest.mark.parametrize("exact", [False, True])
def test_a_query_says_how_to_search(
    collection: Collection, server: LoopbackServer, exact: bool
) -> None:
    """By the graph with candidates enough and quantized, or exactly and by the vectors."""
    collection.query([ask([1, 0, 0, 0], limit=3, exact=exact)] * 2)
    (batch,) = server.requests.of("QueryBatch")
    assert 2 == len(batch.query_points)
    asked = batch.query_points[0]
    assert (3, "dense-0a1b2c3d", 32) == (asked.limit, asked.using, asked.params.hnsw_ef)
    assert (exact, exact) == (asked.params.exact, asked.params.quantization.ignore)
    assert (True, 2.0) == (
        asked.params.quantization.rescore,
        asked.params.quantization.oversampling,
    )
    assert ["pid", "text", "meta"] == list(asked.with_payload.include.fields)


# ---- the index -------------------------------------------------------------------------------


def test_optimize_of_what_is_ready_only_asks(
    collection: Collection, server: LoopbackServer
) -> None:
    """Nothing is changed."""
    collection.optimize()
    assert {"Collections.Get"} == {rpc for rpc, _ in server.requests}


def test_optimize_waits_while_the_server_builds(
    collection: Collection, server: LoopbackServer
) -> None:
    """It returns when the server says that it is done."""
    server.set_status(NAME, "yellow", calls=3)
    collection.optimize()
    assert "ready" == collection.info().state
    assert 5 == server.requests.count("Collections.Get")


def test_optimize_wakes_a_server_that_waits(collection: Collection, server: LoopbackServer) -> None:
    """After a restart, a server waits for a change of settings before it goes on."""
    server.set_status(NAME, "grey")
    collection.optimize()
    assert 1 == server.requests.count("Collections.Update")
    assert "ready" == collection.info().state


@pytest.mark.parametrize("before", ["yellow", "grey"])
def test_optimize_tells_why_it_failed(
    collection: Collection, server: LoopbackServer, before: str
) -> None:
    """In the server's words; it can be called again."""
    server.set_status(NAME, before, calls=1)
    server.set_status(NAME, "red", optimizer_error="no space for segment 7")
    with pytest.raises(StoreError, match=r"no space for segment 7.*run optimize again"):
        collection.optimize()
    server.set_status(NAME, "green")
    collection.optimize()


def test_close_ends_a_wait_for_the_index(
    store: Store, collection: Collection, server: LoopbackServer
) -> None:
    """A server may build for hours."""
    server.set_status(NAME, "yellow")
    with in_thread(collection.optimize) as waiting:
        server.requests.wait_for("Collections.Get", 2)
        store.close()
        assert "was closed" in str(error_of(waiting))


# ---- threads, closing, forking -----------------------------------------------------------------


@pytest.mark.slow
def test_threads_share_a_store_whatever_fails(server: LoopbackServer) -> None:
    """Writers and readers at once, every fifth call in trouble: all is there, nothing twice."""

    def trouble(rpc: str, number: int) -> Fault | None:
        drawn = random.Random(f"seven:{rpc}:{number}")
        faults = (Refused(UNAVAILABLE), Refused(grpc.StatusCode.ABORTED), LostAnswer(), Cut())
        return drawn.choice(faults) if drawn.random() < 0.2 else None

    def write(first: int) -> None:
        for start in range(first, first + 100, 20):
            ids = range(start, start + 20)
            things.upsert(make_batch(ids, [[1, 0, 0, number] for number in ids]))

    def read(_: int) -> None:
        for _ in range(10):
            things.query([ask([1, 0, 0, 0])])

    connection = Connection(retry_s=120, batch_points=5)
    with (
        closing(open_store(server.url, connection=connection)) as store,
        ThreadPoolExecutor(6) as pool,
    ):
        things = make_things(store)
        server.faults.use(trouble)
        futures = [pool.submit(write, first) for first in range(0, 400, 100)]
        futures += [pool.submit(read, number) for number in range(2)]
        assert [None] * 6 == [error_of(future) for future in futures]
        server.faults.use(None)
        assert [(number, {"pid": str(number)}) for number in range(400)] == list(
            things.scan(["pid"])
        )
        assert server.faults.count() > 10


USES: dict[str, Callable[[Store, Collection], object]] = {
    "aliases": lambda store, _: store.aliases(),
    "collection": lambda store, _: store.collection("things"),
    "create_collection": lambda store, _: store.create_collection("a__0001", make_spec(store)),
    "drop_collection": lambda store, _: store.drop_collection(NAME),
    "metadata": lambda store, _: store.metadata("things"),
    "put_metadata": lambda store, _: store.put_metadata("things", make_metadata()),
    "set_alias": lambda store, _: store.set_alias("things", NAME),
    "info": lambda _, things: things.info(),
    "upsert": lambda _, things: things.upsert(points(1)),
    "replace_payloads": lambda _, things: things.replace_payloads([1], [{}]),
    "retrieve": lambda _, things: things.retrieve([1], []),
    "delete": lambda _, things: things.delete([1], up_to_seq=2**62),
    "scan": lambda _, things: list(things.scan([])),
    "query": lambda _, things: things.query([ask([1, 0, 0, 0])]),
    "flush": lambda _, things: things.flush(),
    "optimize": lambda _, things: things.optimize(),
}


def test_a_closed_handle_refuses_every_use(
    store: Store, collection: Collection, server: LoopbackServer
) -> None:
    """With what to do, and without asking the server."""
    collection.upsert(points(1))
    store.close()
    store.close()
    requests = server.requests.count()
    for use in USES.values():
        with pytest.raises(StoreError, match=r"this handle on the store .* was closed"):
            use(store, collection)
    assert requests == server.requests.count()


def test_close_ends_a_retry_that_waits(
    collection: Collection,
    server: LoopbackServer,
    failures: Failures,
    senders_left: Callable[[], set[threading.Thread]],
) -> None:
    """It was asked to wait for an hour; it writes no more, and other stores go on."""
    store = open_store(server.url, connection=Connection(retry_s=7200))
    things, waits = store.collection("things"), threading.Event()
    failures.react = waits.set
    server.faults.inject(FOR_LONG, "Upsert")
    with in_thread(lambda: things.upsert(points(1))) as waiting:
        assert waits.wait(60)
        store.close()
        assert "was closed" in str(error_of(waiting))
    assert (0, 1, set()) == (stored(server), server.requests.count("Upsert"), senders_left())
    collection.upsert(points(1))


class Client:
    """What a link needs of a client to be closed."""

    def close(self) -> None:
        """Nothing is open."""


def test_close_ends_what_is_under_way(
    server: LoopbackServer, senders_left: Callable[[], set[threading.Thread]]
) -> None:
    """Requests that are held and those that have not been sent, of several threads."""
    connection = Connection(batch_points=1, in_flight=2, retry_s=7200)
    store = open_store(server.url, connection=connection)
    things = make_things(store)
    server.faults.inject(Slow(600, drop_if_cancelled=True), "Upsert", times=None)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(things.upsert, points(20)) for _ in range(3)]
        server.requests.wait_for("Upsert", 2)
        store.close()
        errors = [error_of(future) for future in waiting]
    assert [StoreError] * 3 == [type(error) for error in errors]
    assert all("was closed" in str(error) for error in errors)
    server.settle()
    assert (0, set()) == (stored(server), senders_left())


FORKING = """
import os, sys
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.stores import open_store
from tests.stores.server.test_store import USES, points

store = open_store(sys.argv[1])
things = store.collection("things")
things.upsert(points(1))  # so that there are threads that the child does not have
child = os.fork()
if child == 0:
    for use in USES.values():
        try:
            use(store, things)
        except StoreError as exc:
            print(exc)
    store.close()
    sys.stdout.flush()
    os._exit(0)
print("the child ended with", os.waitpid(child, 0)[1])
things.upsert(points(3))
store.close()
"""


@pytest.mark.slow
def test_a_forked_child_is_refused(collection: Collection, server: LoopbackServer) -> None:
    """Every use of the parent's store says so, none hangs, and the parent goes on."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, server.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    refusal = (
        f"the store {server.url} was opened before this process was forked: open it again "
        "in this process"
    )
    assert [refusal] * len(USES) + ["the child ended with 0"] == done.stdout.splitlines()
    assert 3 == collection.info().points


# ---- a server that comes and goes --------------------------------------------------------------


@pytest.mark.parametrize("use", ["upsert", "query", "scan", "info", "delete"])
def test_a_server_that_is_down_for_a_while_is_waited_for(
    collection: Collection, store: Store, server: LoopbackServer, failures: Failures, use: str
) -> None:
    """It is started only when a first attempt has failed."""
    failures.react = server.start
    server.stop()
    USES[use](store, collection)
    assert "attempt 1 failed (UNAVAILABLE: " in failures.told[0]


def test_a_server_that_stays_down_is_told(
    collection: Collection, store: Store, server: LoopbackServer
) -> None:
    """What to look at. When it is back, stores that were opened before go on."""
    with closing(open_store(server.url, connection=AT_ONCE)) as hasty:
        things, told = hasty.collection("things"), ""
        server.stop()
        for _ in range(3):  # the first may still meet the connection that is just ending
            with pytest.raises(StoreUnavailableError) as caught:
                things.upsert(points(3))
            told = str(caught.value)
    for word in (
        "nothing listens on the port: check that Qdrant is running",
        server.url,
        "6334",
        "6333",
    ):
        assert word in told
    server.start()
    collection.upsert(points(3))
    assert (3, NAME) == (stored(server), store.aliases()["things"])
