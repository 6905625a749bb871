"""Mining of candidates for negatives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.core.search_defaults import SearchDefaults
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.errors import (
    EncodingError,
    ModelMismatchError,
    OutputError,
    UsageError,
    WorkerError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.tenants import set_tenant_field
from msmarco_qdrant.runtime.subprocesses import SubprocessPool
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from msmarco_qdrant.train import MinedQuery, mine, mine_negatives, mine_processes, read_negatives
from msmarco_qdrant.train.mine_parts import MinedPart, PartCounts, PartFiles, QueryPart
from msmarco_qdrant.train.mine_systems import limit_for
from tests.engines import ENGINES_MEMORY_FIRST, new_store

WORDS = ("london", "city", "spy", "river", "bridge", "queen", "tea", "rain")
PASSAGES = [
    Passage(str(number), f"{WORDS[number % 8]} {WORDS[number % 7]} {WORDS[number % 5]} w{number}")
    for number in range(40)
]
QUERIES = [Query(f"q{n}", f"{word} {WORDS[n // 2]}") for n, word in enumerate(WORDS)]
POSITIVES = {query.qid: (str(n), str(n + 8)) for n, query in enumerate(QUERIES)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Two collections of two models."""
    place = tmp_path_factory.mktemp("mine") / "store"
    with closing(open_store(place, create=True)) as opened:
        ingest_passages(PASSAGES, opened, encoder=HashingEncoder(), optimize=False)
        other = HashingEncoder(salt="other")
        ingest_passages(PASSAGES, opened, collection="other", encoder=other, optimize=False)
        yield opened


@pytest.fixture
def client(store: Store) -> SearchClient:
    """A client of the first collection."""
    return SearchClient(store, "msmarco", HashingEncoder())


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_candidates_are_the_best_hits_without_positives(
    client: SearchClient, tmp_path: Path, mode: Any
) -> None:
    """Ranks do not count the positives, wherever these are."""
    report = mine_negatives(client, QUERIES, POSITIVES, tmp_path / "out", modes=[mode], depth=7)
    name = {"dense": "costless-64"}.get(mode, mode)

    mined = list(read_negatives(tmp_path / "out"))
    assert [query.qid for query in QUERIES] == [one.qid for one in mined]
    for query, one in zip(QUERIES, mined, strict=True):
        pids = [hit.pid for hit in client.search(query.text, limit=40, mode=mode)]
        others = [pid for pid in pids if pid not in POSITIVES[query.qid]]
        assert POSITIVES[query.qid] == one.positives
        assert {name: tuple(others[:7])} == one.negatives
    assert (8, 7, 0, 0, 0) == (
        report.queries,
        report.wanted,
        report.without_positives,
        report.without_query,
        report.missing_positives,
    )
    assert {name: sum(len(one.negatives[name]) for one in mined)} == report.candidates


def test_a_rank_window_and_several_systems(store: Store, tmp_path: Path) -> None:
    """Each client's modes have its name; the first ranks are left out of each."""
    clients = {
        "old": SearchClient(store, "msmarco", HashingEncoder()),
        "new": SearchClient(store, "other", HashingEncoder(salt="other")),
    }
    modes: Sequence[SearchMode] = ("dense", "bm25")
    mine_negatives(clients, QUERIES, POSITIVES, tmp_path / "all", modes=modes, depth=9)
    mine_negatives(
        clients, QUERIES, POSITIVES, tmp_path / "some", modes=modes, depth=9, first_rank=4
    )

    names = ["old", "old bm25", "new", "new bm25"]
    for whole, part in zip(
        read_negatives(tmp_path / "all"), read_negatives(tmp_path / "some"), strict=True
    ):
        assert names == list(whole.negatives) == list(part.negatives)
        assert {n: pids[3:] for n, pids in whole.negatives.items()} == part.negatives


class DotEncoder(HashingEncoder):
    """Vectors whose lengths differ, compared by their dot product."""

    @property
    def info(self) -> EncoderInfo:
        """Another similarity."""
        return replace(super().info, similarity="dot", fingerprint="d" * 64, model="dotted")

    def _vectors(self, texts: Any) -> NDArray[np.float32]:
        vectors = super()._vectors(texts)
        factors = 1 + np.arange(len(vectors), dtype=np.float32)[::-1] % 5
        return np.asarray(vectors * factors[:, None], np.float32)


@pytest.mark.parametrize("engine", ENGINES_MEMORY_FIRST)
def test_a_dot_product_model_is_mined_by_dot_product(engine: str, tmp_path: Path) -> None:
    """The candidates are those of exact search by dot product, and not those by cosine."""
    encoder = DotEncoder()
    vectors = encoder.encode([passage.text for passage in PASSAGES])
    asked = encoder.encode_queries([query.text for query in QUERIES])
    scores = (asked @ vectors.T).astype(np.float64)
    cosines = scores / np.linalg.norm(vectors, axis=1)
    with new_store(engine, tmp_path) as opened:
        ingest_passages(PASSAGES, opened, encoder=encoder, optimize=False)
        one = SearchClient(opened, "msmarco", encoder)
        mine_negatives(one, QUERIES, POSITIVES, tmp_path / "out", depth=10)

    by_cosine = 0
    for row, mined in enumerate(read_negatives(tmp_path / "out")):
        (found,) = mined.negatives.values()
        others = [n for n in range(len(PASSAGES)) if str(n) not in mined.positives]
        best = sorted((scores[row, n] for n in others), reverse=True)[:10]
        np.testing.assert_allclose([scores[row, int(pid)] for pid in found], best, rtol=1e-5)
        top = sorted((cosines[row, n] for n in others), reverse=True)[:10]
        by_cosine += np.allclose([cosines[row, int(pid)] for pid in found], top)
    assert by_cosine < len(QUERIES)


def test_a_completed_folder_is_reported_without_searching(
    client: SearchClient, tmp_path: Path
) -> None:
    """The same call returns the same report; a call with other arguments is refused."""
    out = tmp_path / "out"
    report = mine_negatives(client, QUERIES, POSITIVES, out, depth=5)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    calls: list[tuple[int, int]] = []
    again = mine_negatives(
        client, QUERIES, POSITIVES, out, depth=5, on_progress=lambda *done: calls.append(done)
    )

    assert (report, []) == (again, calls)
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert {".lock", "negatives.jsonl.gz", "report.json", "settings.json"} == {
        path.name for path in out.iterdir()
    }
    changes: Sequence[tuple[dict[str, Any], str]] = (
        ({"depth": 6}, r"was begun with depth 5, got 6: repeat the first call"),
        ({"depth": 5, "first_rank": 2}, "was begun with first_rank 1, got 2"),
        ({"depth": 5, "modes": ["bm25"]}, "was begun with systems"),
    )
    for options, message in changes:
        with pytest.raises(UsageError, match=message):
            mine_negatives(client, QUERIES, POSITIVES, out, **options)
    for queries, positives in ((QUERIES[1:], POSITIVES), (QUERIES, {**POSITIVES, "q1": ("3",)})):
        with pytest.raises(UsageError, match="was begun with other queries or positives"):
            mine_negatives(client, queries, positives, out, depth=5)


def test_parts_of_more_queries_are_refused(tmp_path: Path) -> None:
    """Also if the next one is missing, as workers on Ray write them in any order."""
    files = PartFiles(tmp_path / "parts")
    for number in (0, 2):
        part = QueryPart.of(number, QUERIES[:1], POSITIVES)
        files.write(part, MinedPart.of(PartCounts(1, 0, {}, {}), []))
    with pytest.raises(UsageError, match="was begun with other queries or positives"):
        files.join(1, tmp_path / "file")
    assert not (tmp_path / "file").exists()


class Failing(HashingEncoder):
    """The first model, until it has encoded so many queries."""

    left = 0

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries, or fail."""
        if self.left < len(queries):
            raise EncodingError("the device was lost")
        self.left -= len(queries)
        return super().encode_queries(queries)


def many_queries(count: int) -> list[Query]:
    """Queries that have the positives of `QUERIES` in turn."""
    return [replace(QUERIES[n % 8], qid=str(n)) for n in range(count)]


def test_a_failed_run_resumes_at_its_last_part(
    store: Store, client: SearchClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are those of a run that did not fail, and finished parts are not searched again."""
    monkeypatch.setattr(mine, "QUERIES_PER_PART", 40)
    queries = many_queries(90)
    positives = {query.qid: POSITIVES[f"q{int(query.qid) % 8}"] for query in queries}
    mine_negatives(client, iter(queries), positives, tmp_path / "whole", depth=3)
    encoder = Failing()
    failing = SearchClient(store, "msmarco", encoder)
    encoder.left = 70
    out = tmp_path / "out"
    with pytest.raises(EncodingError, match="the device was lost"):
        mine_negatives(failing, queries, positives, out, depth=3)
    assert not (out / "negatives.jsonl.gz").exists()
    with pytest.raises(UsageError, match="was begun with other queries or positives"):
        mine_negatives(failing, queries[1:], positives, out, depth=3)

    encoder.left = 90 - 40
    done: list[tuple[int, int]] = []
    mine_negatives(
        failing, queries, positives, out, depth=3, on_progress=lambda *now: done.append(now)
    )
    assert [(40, 90), (90, 90)] == [done[0], done[-1]]
    for name in ("negatives.jsonl.gz", "settings.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (out / name).read_bytes()
    assert 90 == sum(1 for _ in read_negatives(out))


def test_what_is_left_out_is_counted(client: SearchClient, tmp_path: Path) -> None:
    """Queries without positives, positives without a query or a passage, and short lists."""
    queries = [*QUERIES, Query("none", "tea"), Query("few", "zzz")]
    positives = {**POSITIVES, "few": ("1", "lost"), "none": (), "other": ("1",)}
    out = tmp_path / "out"
    report = mine_negatives(client, queries, positives, out, modes=["dense", "bm25"], depth=38)

    assert (9, 1, 1, 1) == (
        report.queries,
        report.without_positives,
        report.without_query,
        report.missing_positives,
    )
    assert {"costless-64": 0, "bm25": 9} == report.short
    assert MinedQuery("few", ("1", "lost"), {"bm25": ()}) == replace(
        list(read_negatives(out))[-1], negatives={"bm25": ()}
    )
    assert [
        "9 queries mined in",
        "costless-64: 342 candidates, 38.0 per query",
        "bm25: ",
        "left out: 1 queries without a positive",
        "not used: positives of 1 queries that were not given",
        "the collection lacks 1 positives",
    ] == [
        line[: len(start)]
        for line, start in zip(
            str(report).splitlines(),
            ["9 queries mined in", "c" * 43, "bm25: ", "l" * 38, "n" * 52, "t" * 32],
            strict=True,
        )
    ]


def test_the_search_defaults_of_the_collection_are_used(store: Store, tmp_path: Path) -> None:
    """They are part of the settings: a resumed run cannot mix two fusions."""
    metadata = store.metadata("other")
    one = SearchClient(store, "other", HashingEncoder(salt="other"))
    mine_negatives(one, QUERIES, POSITIVES, tmp_path / "out", modes=["hybrid"], depth=5)
    try:
        store.put_metadata("other", replace(metadata, search_defaults=SearchDefaults(ef=64)))
        changed = SearchClient(store, "other", HashingEncoder(salt="other"))
        with pytest.raises(UsageError, match="was begun with systems"):
            mine_negatives(changed, QUERIES, POSITIVES, tmp_path / "out", modes=["hybrid"], depth=5)
    finally:
        store.put_metadata("other", metadata)
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())["settings"]
    assert 128 == settings["systems"]["hybrid"]["ef"]
    assert "convex" == settings["systems"]["hybrid"]["fusion"]["method"]


class Swapping(HashingEncoder):
    """An encoder whose client finds another model after the first search."""

    client: SearchClient

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries, and let the client have another session."""
        encoder = HashingEncoder(salt="other")
        self.client.session = SearchClient(self.client.store, "other", encoder).session
        return super().encode_queries(queries)


@pytest.mark.parametrize("mode", ["dense", pytest.param("hybrid", marks=pytest.mark.slow)])
def test_several_processes_mine_the_same_bytes(
    mode: SearchMode, store: Store, client: SearchClient, tmp_path: Path
) -> None:
    """They search shared files, which are removed at the end; a store in memory has none."""
    for processes in (1, 2):
        out = tmp_path / str(processes)
        mine_negatives(client, QUERIES, POSITIVES, out, modes=[mode], depth=5, processes=processes)
    one, two = ((tmp_path / str(n) / "negatives.jsonl.gz").read_bytes() for n in (1, 2))
    assert one == two
    assert [] == [*Path(store.dsn).rglob("shared/*")]


def test_a_store_in_memory_is_mined_by_one_process(tmp_path: Path) -> None:
    """It has no files to share."""
    with open_store(":memory:", create=True) as store:
        ingest_passages(PASSAGES, store, encoder=HashingEncoder())
        other = SearchClient(store, "msmarco", HashingEncoder())
        with pytest.raises(UsageError, match="processes must be 1 for a store that is not a dir"):
            mine_negatives(other, QUERIES, POSITIVES, tmp_path / "out", processes=2)


class Writing(HashingEncoder):
    """An encoder whose second call runs a function first."""

    calls = 0
    change: Callable[[], object]

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries."""
        self.calls += 1
        if self.calls == 2:
            self.change()
        return super().encode_queries(queries)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["write", "kill", "foreign"])
def test_this_process_goes_on_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a write to the collection, silently, or the end of a process, with a warning."""
    monkeypatch.setattr(mine, "QUERIES_PER_PART", 8)
    started: list[SubprocessPool[Any, Any]] = []

    def start(*arguments: Any) -> SubprocessPool[Any, Any]:
        started.append(SubprocessPool(*arguments))
        return started[-1]

    monkeypatch.setattr(mine_processes, "SubprocessPool", start)
    queries = many_queries(24)
    positives = {query.qid: POSITIVES[f"q{int(query.qid) % 8}"] for query in queries}
    with closing(open_store(tmp_path / "store", create=True)) as store:
        ingest_passages(PASSAGES, store, encoder=HashingEncoder(), optimize=False)
        encoder = Writing()
        one = SearchClient(store, "msmarco", encoder)
        collection = store.collection("msmarco")
        seq = collection.info().last_seq
        if kind == "foreign":
            collection.replace_payloads([39], [{"text": "of another program"}])

        def kill() -> None:
            for worker in started[0]._all:
                worker._process.kill()

        changes: dict[str, Callable[[], object]] = {
            "write": lambda: collection.delete([38], up_to_seq=seq),
            "kill": kill,
            "foreign": lambda: None,
        }
        encoder.change = changes[kind]
        for processes in (2, 1):
            out = tmp_path / str(processes)
            mine_negatives(one, queries, positives, out, depth=30, processes=processes)
        mined = [*read_negatives(tmp_path / "2")]
        assert [*read_negatives(tmp_path / "1")][8:] == mined[8:]
        foreign = one.session.foreign_points
    assert 24 == len(mined)
    warned = "this one mines alone" in caplog.text
    assert (kind == "kill", kind == "foreign") == (warned, foreign > 0)


@pytest.mark.parametrize(("start_s", "starts"), [(0.0, 1), (1e9, 0)])
def test_processes_start_where_the_measured_searches_pay(
    start_s: float,
    starts: int,
    client: SearchClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After some batches were measured, and once; a start that costs too much is not made."""
    tried: list[int] = []

    def start(_function: object, count: int) -> None:
        tried.append(count)
        raise WorkerError("no room for another process")

    monkeypatch.setattr(mine_processes, "SubprocessPool", start)
    monkeypatch.setattr(mine_processes, "usable_cores", lambda: 2)
    monkeypatch.setattr(mine_processes, "_START_S", start_s)
    queries = many_queries(12 * 32)
    positives = {query.qid: POSITIVES[f"q{int(query.qid) % 8}"] for query in queries}
    report = mine_negatives(client, queries, positives, tmp_path / "out", depth=3)

    assert [2] * starts == tried
    assert len(queries) == report.queries


def test_a_collection_that_is_re_embedded_is_refused(store: Store, tmp_path: Path) -> None:
    """Candidates of two models are never mixed."""
    encoder = Swapping()
    one = encoder.client = SearchClient(store, "msmarco", encoder)
    with pytest.raises(ModelMismatchError, match="re-embedded with costless-64other during mining"):
        mine_negatives(one, QUERIES, POSITIVES, tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth": 0}, "depth must be 1 to 10,000, got 0"),
        ({"depth": 10_001}, "depth must be 1 to 10,000, got 10001"),
        ({"depth": True}, "depth must be 1 to 10,000, got True"),
        ({"first_rank": 0}, "first_rank must be 1 to 10,000, got 0"),
        ({"processes": 0}, "processes must be 1 to 64, got 0"),
        ({"processes": 65}, "processes must be 1 to 64, got 65"),
        ({"processes": 2.0}, r"processes must be 1 to 64, got 2\.0"),
        ({"depth": 5, "first_rank": 6}, r"first_rank must be 1 to depth \(5\), got 6"),
        ({"modes": []}, r"modes must be a list of dense, bm25, hybrid, got \[\]"),
        ({"modes": "dense"}, "modes must be a list of dense, bm25, hybrid, got 'dense'"),
        ({"modes": ["sparse"]}, "modes must be of dense, bm25, hybrid, got 'sparse'"),
        ({"modes": ["bm25", "bm25"]}, "modes must differ, got bm25, bm25"),
        ({"client": {}}, "client must be a SearchClient, or several by name"),
        ({"client": "msmarco"}, "client must be a SearchClient, or several by name"),
        ({"client": {"a": 1}}, "client must be a SearchClient, or several by name, got 'a': 1"),
        ({"queries": []}, "queries must be one query or more, got none"),
        ({"queries": [QUERIES[0], QUERIES[0]]}, "each query needs its own qid, got 'q0' twice"),
        ({"queries": [Query("q0", " ")]}, "cannot search for query 'q0': query must not be empty"),
        ({"queries": [Query("x", "a")]}, "none of the 1 queries has a positive: .*'x'.*'q0'"),
        ({"positives": {"q0": ("z",)}}, "none of the 1 relevant passages of the judgments is in"),
        ({"ranks": 5}, r"mine_negatives\(\) has no argument 'ranks'"),
    ],
)
def test_invalid_arguments_are_refused(
    client: SearchClient, tmp_path: Path, changed: Mapping[str, Any], message: str
) -> None:
    """Before anything is searched for."""
    arguments: dict[str, Any] = {"client": client, "queries": QUERIES, "positives": POSITIVES}
    with pytest.raises(UsageError, match=message):
        mine_negatives(**{**arguments, "out": tmp_path / "out", **changed})


def test_a_tenants_passages_are_mined(tmp_path: Path) -> None:
    """Only they are candidates; a collection with tenants requires one, others refuse it."""
    rows = [replace(p, meta={"team": "ab"[n % 2]}) for n, p in enumerate(PASSAGES)]
    with closing(open_store(tmp_path / "store", create=True)) as opened:
        encoder = HashingEncoder()
        ingest_passages(rows, opened, encoder=encoder, optimize=False)
        one = SearchClient(opened, "msmarco", encoder)
        with pytest.raises(UsageError, match="has no tenant field, got the tenant 'a'"):
            mine_negatives(one, QUERIES, POSITIVES, tmp_path / "out", tenant="a")
        set_tenant_field(opened, "msmarco", "team")
        one = SearchClient(opened, "msmarco", encoder)
        with pytest.raises(UsageError, match=r"read by one tenant at a time.*pass tenant="):
            mine_negatives(one, QUERIES, POSITIVES, tmp_path / "out")
        report = mine_negatives(one, QUERIES, POSITIVES, tmp_path / "out", depth=5, tenant="a")

    assert 8 == report.missing_positives
    for mined in read_negatives(tmp_path / "out"):
        assert {0} == {int(pid) % 2 for pid in mined.negatives["costless-64"]}


def test_systems_need_different_names(store: Store, client: SearchClient, tmp_path: Path) -> None:
    """So do clients of one model under names that a mode makes equal."""
    clients = {"a": client, "a bm25": client}
    with pytest.raises(UsageError, match="each system needs its own name, got 'a bm25' twice"):
        mine_negatives(clients, QUERIES, POSITIVES, tmp_path / "out", modes=["dense", "bm25"])
    without = SearchClient(store, "msmarco", None)
    with pytest.raises(UsageError, match="opened with bm25_only"):
        mine_negatives(without, QUERIES, POSITIVES, tmp_path / "out")
    assert 8 == mine_negatives(without, QUERIES, POSITIVES, tmp_path / "b", modes=["bm25"]).queries


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("report.json", "[]", "is not the report of a mining run"),
        ("report.json", '{"inputs": "x"}', "is not the report of a mining run"),
        ("parts/000000.part", "{}", r"cannot read .*000000.part: .*; delete it to mine it again"),
        ("parts/000000.part", '{"digest": 1, "x": 2}', "cannot read"),
    ],
)
def test_damaged_files_are_refused(
    client: SearchClient, tmp_path: Path, name: str, content: str, error: str
) -> None:
    """Nothing in the folder is taken on trust."""
    out = tmp_path / "out"
    mine_negatives(client, QUERIES, POSITIVES, out, depth=5)
    (out / "report.json").unlink()
    (out / "parts").mkdir()
    (out / name).write_text(content)
    with pytest.raises(OutputError, match=error):
        mine_negatives(client, QUERIES, POSITIVES, out, depth=5)


@pytest.mark.parametrize(
    ("depth", "positives", "expected"),
    [(100, 1, 101), (100, 2, 102), (100, 3, 104), (100, 475, 612), (9999, 3, 10_000)],
)
def test_limits_are_few_and_leave_enough(depth: int, positives: int, expected: int) -> None:
    """One search has room for all positives; the engine's most is never exceeded."""
    assert expected == limit_for(depth, positives)
