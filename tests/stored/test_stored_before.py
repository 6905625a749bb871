"""Stores, spools, shards and locks that an earlier version (0.1.0) wrote still open.

The program in `make_fixtures.txt` wrote the fixtures with that version; do not edit them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from msmarco_qdrant import (
    Bm25Settings,
    MetaFilter,
    MsmarcoQdrantError,
    Passage,
    Range,
    SearchClient,
    StorageSettings,
    VectorShards,
    describe_store,
    encode_corpus,
    get_passages,
    ingest_passages,
    migrate_collection,
    migration_status,
    open_store,
    prune_collection,
    reembed_collection,
    rollback_collection,
)
from msmarco_qdrant.collection.migration import load_migrations
from msmarco_qdrant.core.collection_types import HnswSettings
from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.encoding.fingerprint_1 import compute_fingerprint_1
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation import read_run
from msmarco_qdrant.service.spool.inbox import Inbox
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.settings import load_settings
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.loopback import LoopbackServer
from tests.service.sidecars import CountedModels, pids_of, settings_in, sidecar_client
from tests.service.sidecars import ended as ended_over_http
from tests.service.spool.helpers import ended, running_worker

from .contents import (
    CHECKSUMS,
    ENCODER,
    FIXTURES,
    LOCK_HOST,
    LOCK_PID,
    LOCK_SINCE,
    LOCK_TOKEN,
    OTHER,
    PASSAGES,
    QUERIES,
    SHORT_TEXTS,
    WAITING_TEXTS,
)

APPLIED = ("0001_create_passages", "0002_payload_indexes")
OWN_APPLIED = ("0001_short_texts", "0002_small_segments")
OWN_PENDING = ("0003_index_score", "0004_not_compressed")
CLAIMED_ID = "a" * 32
COUNTS = {"written", "unchanged", "rejected", "deleted", "superseded", "seconds"}


def test_fixtures_are_those_that_were_written() -> None:
    """A search and replace over the repository has not edited them."""
    lines = (FIXTURES / CHECKSUMS).read_text().splitlines()
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    assert expected == {
        path.relative_to(FIXTURES).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FIXTURES.rglob("*")
        if path.is_file() and path.name != CHECKSUMS
    }


# ---- stores ------------------------------------------------------------------------------------


def unpacked(name: str, folder: Path) -> str:
    """Unpack an Edge store and return its path."""
    with tarfile.open(FIXTURES / f"{name}.tar.gz") as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # as of Python 3.11.4
        packed.extractall(folder)  # noqa: S202  # our own archive
    return str(folder / "store")


@contextmanager
def served() -> Iterator[str]:
    """The URL of a server with the content of the fixtures' server."""
    kept = json.loads((FIXTURES / "server.json").read_text())
    with LoopbackServer() as server:
        client = QdrantClient(
            url=f"http://127.0.0.1:{server.port}",
            grpc_port=server.port,
            prefer_grpc=True,
            check_compatibility=False,
        )
        with closing(client):
            for name, held in kept["collections"].items():
                restore(client, name, held)
            client.update_collection_aliases(
                [
                    models.CreateAliasOperation(
                        create_alias=models.CreateAlias(alias_name=alias, collection_name=name)
                    )
                    for alias, name in kept["aliases"].items()
                ]
            )
        yield server.url


def restore(client: QdrantClient, name: str, held: Mapping[str, Any]) -> None:
    """Create a collection of the fixtures on a server."""
    config, params = held["config"], held["config"]["params"]
    client.create_collection(
        name,
        vectors_config={
            vector: models.VectorParams(**fields) for vector, fields in params["vectors"].items()
        },
        sparse_vectors_config={
            vector: models.SparseVectorParams(**answered)
            for vector, answered in params.get("sparse_vectors", {}).items()
        },
        hnsw_config=models.HnswConfigDiff(**config["hnsw_config"]),
        optimizers_config=models.OptimizersConfigDiff(**config["optimizer_config"]),
        metadata=config.get("metadata"),
    )
    for field, kind in held["payload_schema"].items():
        client.create_payload_index(name, field, models.PayloadSchemaType(kind))
    client.upsert(name, [models.PointStruct(**point) for point in held["points"]])


@pytest.fixture(scope="module", params=["edge", pytest.param("server", marks=pytest.mark.slow)])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A store of each engine, for tests that only read: a directory, then a URL."""
    if request.param == "edge":
        yield unpacked("edge-settings", tmp_path_factory.mktemp("stored"))
    else:
        with served() as url:
            yield url


@pytest.fixture(params=["edge", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store of each engine, for tests that write: a directory, then a URL."""
    if request.param == "edge":
        yield unpacked("edge-settings", tmp_path)
    else:
        with served() as url:
            yield url


@pytest.fixture
def edge(tmp_path: Path) -> str:
    """The directory alone."""
    return unpacked("edge-settings", tmp_path)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder of migrations of an earlier version, with the renames of the changelog."""
    folder = tmp_path / "own"
    folder.mkdir()
    for path in (FIXTURES / "own_migrations").iterdir():
        text = path.read_text().replace("quantisation=", "quantization=")
        text = text.replace("Store, alterable", "Store")
        text = text.replace(
            "alterable(store, plan.physical)", "store.admin_collection(plan.physical)"
        )
        (folder / path.name.removesuffix(".txt")).write_text(text)
    return folder


def check_found(
    place: str, collection: str, passages: Sequence[Passage], encoder: HashingEncoder = ENCODER
) -> None:
    """Check that each passage is the first hit of its text in all modes."""
    with SearchClient.open(place, collection=collection, encoder=encoder) as client:
        for mode in ("dense", "bm25", "hybrid"):
            hits = client.search_many([one.text for one in passages], limit=1, mode=mode)
            found = [(hit.pid, hit.text, hit.meta) for (hit,) in hits]
            assert [(one.pid, one.text, one.meta) for one in passages] == found


def test_settings_are_the_same(stored: str) -> None:
    """Storage, graph, indexes, BM25 settings, ledger and encoder are read as they were written."""
    with closing(open_store(stored)) as store:
        (guide,) = describe_store(store, "guide").collections
        (plain,) = describe_store(store, "plain").collections
        seqs = {
            name: [payload["seq"] for _, payload in store.collection(name).scan(("seq",))]
            for name in ("guide__0001", "plain__0001")
        }
    year, lang, seq = ("meta.year", "integer"), ("meta.lang", "keyword"), ("seq", "integer")
    assert [
        ("guide", "guide__0001", 8, StorageSettings(True, "int8"), dict((year, lang, seq))),
        ("plain", "plain__0001", 5, StorageSettings(False, "none"), dict((seq,))),
    ] == [
        (
            one.name,
            one.info.name,
            one.info.points,
            one.info.spec.storage,
            one.info.spec.payload_indexes,
        )
        for one in (guide, plain)
    ]
    assert [
        ((*APPLIED, *OWN_APPLIED), SHORT_TEXTS, ENCODER.info),
        (APPLIED, Bm25Settings(), ENCODER.info),
    ] == [
        (one.metadata.migrations, one.metadata.bm25, one.metadata.encoder) for one in (guide, plain)
    ]
    for one in (guide, plain):
        assert HnswSettings(16, 256) == one.info.spec.hnsw
        assert (1, "0.1.0") == (one.metadata.schema_version, one.metadata.package_version)
        assert (None, None) == (one.metadata.copied_from, one.metadata.previous)
        assert max(seqs[one.info.name]) == one.info.last_seq


def test_quantized_copies_and_graph_are_kept(edge: str) -> None:
    """Edge reports and searches `turbo4`, and does not build an index again."""
    with closing(open_store(edge)) as store:
        assert StorageSettings(True, "turbo4") == store.collection("turbo").info().spec.storage
        info = store.collection("guide").info()
    assert (16, "ready") == (info.indexed, info.state)
    check_found(edge, "turbo", PASSAGES[:3])


def test_search_finds_what_was_stored(stored: str) -> None:
    """Dense, BM25 and hybrid searches find passages of both collections; pids find points."""
    check_found(stored, "guide", PASSAGES)
    check_found(stored, "plain", PASSAGES[:5])
    expected = {one.pid: one for one in PASSAGES}
    assert expected == get_passages(stored, list(expected), collection="guide")


def test_filters_find_what_was_stored(stored: str) -> None:
    """Filters on `meta` fields work."""
    with SearchClient.open(stored, collection="guide", encoder=ENCODER) as client:
        wanted: Sequence[tuple[MetaFilter, set[str]]] = (
            ({"year": 2004}, {"2", "18446744073709551616"}),
            ({"year": Range(gte=2005)}, {"3"}),
            ({"lang": "en", "year": Range(lt=2000)}, {"1"}),
            ({"tags": "raptor"}, {"007"}),
        )
        for meta_filter, expected in wanted:
            hits = client.search("water", meta_filter=meta_filter)
            assert expected == {hit.pid for hit in hits}


def test_ingest_of_the_same_changes_nothing(stored: str) -> None:
    """Ids and digests are equal: nothing is encoded or written again."""
    report = ingest_passages(PASSAGES, stored, collection="guide", encoder=ENCODER)
    assert (0, 8, 0, 0) == (report.written, report.unchanged, report.encoded, report.rejected)


def test_ingest_writes_on(place: str) -> None:
    """A new text replaces an old one, and a new passage is added; none is stored twice."""
    new = [Passage("007", "A heron stands in the reeds."), Passage("9", "Lighthouses blink.")]
    report = ingest_passages(new, place, collection="plain", encoder=ENCODER, optimize=False)
    assert (2, 0) == (report.written, report.unchanged)
    check_found(place, "plain", [*PASSAGES[:3], *new, PASSAGES[4]])
    with closing(open_store(place)) as store:
        assert 6 == store.collection("plain").info().points


@pytest.mark.parametrize("name", ["exported.jsonl", "exported.jsonl.gz", "exported.parquet"])
def test_exported_passages_are_the_same(edge: str, name: str) -> None:
    """A file that an earlier version exported equals the content of the store."""
    report = ingest_passages(
        FIXTURES / name, edge, collection="guide", encoder=ENCODER, optimize=False
    )
    assert (0, 8, 0) == (report.written, report.unchanged, report.rejected)


@pytest.mark.slow
def test_lock_file_of_a_killed_process(edge: str) -> None:
    """The error contains its note while a process holds the lock; later the store opens."""
    with (Path(edge) / ".lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MsmarcoQdrantError) as caught:
            open_store(edge)
    assert f"process {LOCK_PID} on {LOCK_HOST} since {LOCK_SINCE}" in str(caught.value)
    open_store(edge).close()


@pytest.mark.parametrize("name", ["cut", "gone"])
def test_interrupted_creation_is_done_again(edge: str, name: str) -> None:
    """One left a shard without metadata, the other an unlisted directory."""
    assert 2 == ingest_passages(PASSAGES[:2], edge, collection=name, encoder=ENCODER).written
    check_found(edge, name, PASSAGES[:2])
    with closing(open_store(edge)) as store:
        assert f"{name}__0001" == store.aliases()[name]


def test_interrupted_exchange_of_segments_is_undone(tmp_path: Path) -> None:
    """The segments before the crash count, and the index is built again."""
    place = unpacked("edge-crashed", tmp_path)
    check_found(place, "guide", PASSAGES)
    shard = Path(place) / "collections" / "guide__0001"
    left = {"replaced", "building", "temp_segments"} & {path.name for path in shard.iterdir()}
    assert set() == left
    assert 8 == ingest_passages(PASSAGES, place, collection="guide", encoder=ENCODER).unchanged


# ---- migrations --------------------------------------------------------------------------------


@pytest.mark.slow
def test_ledger_is_continued(edge: str, own: Path) -> None:
    """A user's applied migrations stay applied, and the pending ones are applied."""
    with closing(open_store(edge)) as store:
        status = migration_status(store, "guide", directory=own)
        assert ((*APPLIED, *OWN_APPLIED), OWN_PENDING, ()) == (
            status.applied,
            tuple(one.name for one in status.pending),
            status.unknown,
        )
        assert OWN_PENDING == tuple(
            step.name for step in migrate_collection(store, "guide", directory=own)
        )
        spec = store.collection("guide").info().spec
        assert (StorageSettings(False, "none"), "float") == (
            spec.storage,
            spec.payload_indexes["meta.score"],
        )
        assert migration_status(store, "guide", directory=own).is_current
    check_found(edge, "guide", PASSAGES)


@pytest.mark.slow
def test_all_own_migrations_apply(place: str, own: Path) -> None:
    """Migration files of an earlier version, with the renames, still work."""
    with closing(open_store(place)) as store:
        steps = migrate_collection(store, "plain", directory=own)
        assert [*OWN_APPLIED, *OWN_PENDING] == [step.name for step in steps]
        assert SHORT_TEXTS == store.metadata("plain").bm25
    check_found(place, "plain", PASSAGES[:5])


@pytest.mark.slow
def test_lock_of_a_process_that_has_ended(own: Path) -> None:
    """The lock on a server is reported, refuses migrations, and can be removed by its token."""
    with served() as url:
        here = ("--store", url, "--collection", "guide")
        status = json.loads(command("migrate", "status", *here, "--json").out)
        holder = {"token": LOCK_TOKEN, "host": LOCK_HOST, "pid": LOCK_PID, "since": LOCK_SINCE}
        assert holder == status["locked_by"]
        refused = command("migrate", "up", *here, "--dir", str(own))
        assert 0 != refused.status
        assert LOCK_TOKEN in refused.err
        assert 0 == command("migrate", "unlock", *here, "--token", LOCK_TOKEN).status
        applied = command("migrate", "up", *here, "--dir", str(own))
        assert (0, f"applied: {', '.join(OWN_PENDING)}\n") == (applied.status, applied.out)
        check_found(url, "guide", PASSAGES)


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("0003_index_score", "'alterable' is now 'Store.admin_collection'"),
        ("0004_not_compressed", "'quantisation' is now 'quantization'"),
    ],
)
def test_renamed_names_of_a_migration_are_named(tmp_path: Path, name: str, renamed: str) -> None:
    """A migration of an earlier version that uses a removed name gets the new one."""
    shutil.copy(FIXTURES / "own_migrations" / f"{name}.py.txt", tmp_path / f"{name}.py")
    with pytest.raises(UsageError, match=f"cannot be loaded: .*{renamed}"):
        load_migrations(tmp_path)


# ---- re-embeddings -----------------------------------------------------------------------------


@pytest.fixture
def generations(tmp_path: Path) -> str:
    """A store with finished and unfinished re-embeddings."""
    return unpacked("edge-generations", tmp_path)


@pytest.mark.slow
def test_finished_reembedding_can_be_undone(generations: str) -> None:
    """The alias points to the old collection again, and prune removes the other."""
    check_found(generations, "moved", PASSAGES[:4], OTHER)
    with closing(open_store(generations)) as store:
        status = migration_status(store, "moved")
        others = [other.physical for other in status.others]
        assert ("moved__0002", ["moved__0001"], None) == (status.physical, others, status.copying)
        report = rollback_collection(store, "moved", encoder=ENCODER, load_old=lambda _info: OTHER)
        assert ("moved__0001", 4, 0) == (report.new, report.passages, report.copied)
        assert ("moved__0002",) == prune_collection(store, "moved")
    check_found(generations, "moved", PASSAGES[:4])


@pytest.mark.parametrize(("name", "is_swapped"), [("half", False), ("late", True)])
def test_interrupted_reembedding_is_completed(
    generations: str, name: str, is_swapped: bool
) -> None:
    """Before the swap, only passages written since are copied; after it, the last pass is done."""
    check_found(generations, name, PASSAGES[:5], OTHER if is_swapped else ENCODER)
    with closing(open_store(generations)) as store:
        copying = migration_status(store, name).copying
        assert copying is not None
        assert (f"{name}__0001", f"{name}__0002", is_swapped) == (
            copying.source,
            copying.target,
            copying.is_swapped,
        )
        report = reembed_collection(store, name, encoder=OTHER, load_old=lambda _info: ENCODER)
        assert (f"{name}__0002", 5) == (report.new, report.passages)
        assert is_swapped or 1 == report.copied
        assert None is migration_status(store, name).copying
    check_found(generations, name, PASSAGES[:5], OTHER)


# ---- the sidecar's directories -----------------------------------------------------------------


@pytest.fixture
def sidecar_folder(tmp_path: Path) -> Path:
    """A folder with the spool and inbox of a sidecar that was killed."""
    for name in ("spool", "inbox"):
        shutil.copytree(FIXTURES / name, tmp_path / name)
    return tmp_path


def reported(state: str) -> dict[str, dict[str, Any]]:
    """The reports of ended batches, by id."""
    paths = (FIXTURES / "spool" / state).glob("0*.json")
    found = [json.loads(path.read_text()) for path in paths]
    return {fields["batch"]: fields for fields in found}


def waiting_ids() -> list[str]:
    """The ids of batches that have not ended, in order."""
    ended_ids = {*reported("done"), *reported("failed")}
    paths = [*FIXTURES.glob("spool/working/*"), *FIXTURES.glob("spool/incoming/*")]
    ids = [
        path.name.partition("-")[2].partition(".")[0]
        for path in sorted(paths, key=attrgetter("name"))
    ]
    return [id_ for id_ in ids if id_ not in ended_ids]


def test_waiting_batches_are_applied_in_order(sidecar_folder: Path) -> None:
    """The leased batch comes first, then the queued ones; ended ones are not applied again."""
    with (
        Spool.open(sidecar_folder / "spool") as spool,
        closing(open_store(":memory:", create=True)) as store,
    ):
        ingest_passages(PASSAGES[:2], store, encoder=ENCODER)
        assert (3, 3) == (spool.depth, len(waiting_ids()))
        with running_worker(spool, store, ENCODER):
            states = [ended(spool, id_) for id_ in waiting_ids()]
        texts = {pid: one.text for pid, one in get_passages(store, map(str, range(30))).items()}
    assert ["done"] * 3 == [one.state for one in states]
    assert [2, 1, 2] == [one.report.written for one in states]
    assert [0, 1, 0] == [one.report.deleted for one in states]
    assert dict(WAITING_TEXTS) == texts


def test_states_of_ended_batches_are_reported(sidecar_folder: Path) -> None:
    """Counts, rejected rows, reasons and times are those of the report."""
    with Spool.open(sidecar_folder / "spool") as spool:
        for id_, fields in {**reported("done"), **reported("failed")}.items():
            state = spool.state(id_)
            assert state is not None
            found = {name: getattr(state, name, None) for name in fields}
            counts = {name: getattr(state.report, name) for name in fields.keys() & COUNTS}
            rejects = [{"line": row.line, "reason": row.reason} for row in state.report.rejects]
            assert fields == {**found, **counts, "rejects": rejects}
    assert [3, 2] == [len(reported("done")), len(reported("failed"))]


def test_crash_after_a_report_is_completed(sidecar_folder: Path) -> None:
    """A leased batch with a report has ended: its file is moved."""
    Spool.open(sidecar_folder / "spool").close()
    done, failed = (f"{number:016}-{number:032x}.ops.jsonl" for number in (8001, 8002))
    found = {
        path.relative_to(sidecar_folder / "spool").as_posix() for path in files(sidecar_folder)
    }
    assert {f"done/{done}.json", f"failed/{failed}", f"failed/{failed}.json"} == {
        name for name in found if "-00000000" in name
    }
    assert set() == {name for name in found if name.startswith(("tmp/", "working/"))}
    assert set() == {name for name in found if name.endswith(".tmp")}


def files(folder: Path) -> Iterator[Path]:
    """The files of a spool."""
    return (path for path in (folder / "spool").rglob("*") if path.is_file())


def test_new_batches_follow_the_old(sidecar_folder: Path) -> None:
    """No number is used twice."""
    with Spool.open(sidecar_folder / "spool") as spool:
        id_ = spool.accept([{"op": "delete", "pid": "1"}])
        names = sorted(path.name for path in (sidecar_folder / "spool" / "incoming").iterdir())
    assert id_ == names[-1].partition("-")[2].partition(".")[0]
    reserved = int((FIXTURES / "spool" / "sequence").read_text())
    assert reserved == int(names[-1].partition("-")[0])


def test_files_in_the_inbox_are_accepted(sidecar_folder: Path) -> None:
    """A claimed file keeps its id, or is deleted if it is queued; an incomplete one stays."""
    inbox = sidecar_folder / "inbox"
    with Spool.open(sidecar_folder / "spool") as spool:
        assert 3 == Inbox(inbox, spool).sweep()
        assert 3 + 2 == spool.depth
        assert None is not spool.state(CLAIMED_ID)
    assert ["unfinished.tsv.part"] == [path.name for path in inbox.iterdir()]


@pytest.mark.slow
def test_sidecar_continues_for_one_that_was_killed(sidecar_folder: Path) -> None:
    """Spool, inbox and store: all batches are applied, found, and reported over HTTP."""
    store = unpacked("edge-settings", sidecar_folder)
    settings = settings_in(
        sidecar_folder, store, inbox=sidecar_folder / "inbox", collection="guide"
    )
    with sidecar_client(settings, CountedModels((HashingEncoder(64),))) as client:
        for id_ in (*waiting_ids(), CLAIMED_ID):
            answer = client.get(f"/batches/{id_}")
            assert "done" == ended_over_http(client, answer)["state"]
        for id_, fields in {**reported("done"), **reported("failed")}.items():
            answered = client.get(f"/batches/{id_}").json()
            shared = fields.keys() & answered.keys() - {"reason"}
            assert {name: fields[name] for name in shared} == {
                name: answered[name] for name in shared
            }
            assert fields["reason"] == (answered["reason"] or "")
        for pid, text in WAITING_TEXTS.items():
            assert [pid] == pids_of(client, text, limit=1)
        assert "2" not in pids_of(client, QUERIES["2"])


# ---- vectors -----------------------------------------------------------------------------------

LINES = [FIXTURES / "sources" / name for name in ("one.tsv", "two.jsonl", "three.tsv.gz")]
PARQUET = [FIXTURES / "sources" / name for name in ("four.parquet", "five.parquet")]


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Folders of vectors of an earlier version."""
    shutil.copytree(FIXTURES / "vectors", tmp_path / "vectors")
    return tmp_path / "vectors"


def test_folder_of_vectors_is_loaded(vectors: Path, tmp_path: Path) -> None:
    """No model is needed; each vector belongs to its row."""
    shards = VectorShards(vectors / "complete")
    assert (ENCODER.info, 8, 3) == (shards.encoder, shards.size, len(shards.paths))
    report = ingest_passages(shards, tmp_path / "store")
    assert (8, 0, 0) == (report.written, report.encoded, report.rejected)
    with SearchClient.open(tmp_path / "store", encoder=ENCODER) as client:
        for pid, query in QUERIES.items():
            (hit,) = client.search(query, limit=1)
            assert pid == hit.pid
            assert pytest.approx(1, abs=1e-3) == hit.score


def test_complete_folder_is_not_encoded_again(vectors: Path) -> None:
    """Equal files give equal digests: nothing is encoded or written."""
    before = {path: path.read_bytes() for path in (vectors / "complete").iterdir()}
    encoder = HashingEncoder(64)
    report = encode_corpus(LINES, vectors / "complete", encoder=encoder)
    assert (0, 0, 8, 3) == (encoder.encoded, report.encoded, report.found, report.shards)
    assert before == {path: path.read_bytes() for path in (vectors / "complete").iterdir()}


def test_interrupted_folder_is_completed(vectors: Path) -> None:
    """It cannot be ingested before; only the missing file is encoded."""
    folder = vectors / "interrupted"
    with pytest.raises(MsmarcoQdrantError):
        VectorShards(folder)
    encoder = HashingEncoder(64)
    report = encode_corpus(LINES, folder, encoder=encoder, dtype="float32")
    assert (3, 3, 5, 3) == (encoder.encoded, report.encoded, report.found, report.shards)
    assert ["00000.parquet", "00001.parquet", "00002.parquet", "manifest.json"] == sorted(
        path.name for path in folder.iterdir()
    )
    found = [row.passage.pid for row in VectorShards(folder) if hasattr(row, "passage")]
    assert [one.pid for one in PASSAGES] == found


def test_interrupted_folder_with_rejected_rows_is_completed(vectors: Path) -> None:
    """The digest contains the reasons of rejected Parquet rows, in the old words."""
    encoder = HashingEncoder(64)
    report = encode_corpus(PARQUET, vectors / "rejected", encoder=encoder)
    assert (2, 2, 1, 2) == (encoder.encoded, report.encoded, report.found, report.rejected)
    assert 3 == VectorShards(vectors / "rejected").size


# ---- files -------------------------------------------------------------------------------------


def test_saved_run_is_read() -> None:
    """A TREC run of an earlier version."""
    run = read_run(FIXTURES / "run.trec")
    expected = {"q1": [("1", 0.75), ("007", 0.5)], "q2": [("x", 1.0)]}
    assert expected == {qid: list(ranking) for qid, ranking in run.rankings.items()}


def test_file_of_settings_still_counts() -> None:
    """Each variable of a `.env` counts; a renamed one is refused with its new name."""
    text = (FIXTURES / "env").read_text()
    Path(".env").write_text(text)
    with pytest.raises(
        UsageError, match=r"MSMARCO_QDRANT_QUANTISATION.*MSMARCO_QDRANT_QUANTIZATION"
    ):
        load_settings({}, Path(".env"))
    Path(".env").write_text(text.replace("QUANTISATION", "QUANTIZATION"))
    settings = load_settings({}, Path(".env"))
    assert ("./somewhere", "guide", StorageSettings(False, "none")) == (
        settings.store,
        settings.collection,
        settings.storage,
    )


def test_fingerprint_of_a_model_is_the_same() -> None:
    """A collection accepts the model that filled it."""
    expected = json.loads((FIXTURES / "fingerprint.json").read_text())["fingerprint"]
    prompts = Prompts("query: ", "passage: ")
    assert expected == compute_fingerprint_1(FIXTURES / "model", prompts, 128)
