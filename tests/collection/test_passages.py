"""Tests of reading, deleting and exporting passages."""

from __future__ import annotations

import gzip
import json
import logging
import re
import sys
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models

from msmarco_qdrant.collection import delete
from msmarco_qdrant.collection import passages as passages_module
from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.collection.passages import (
    count_passages,
    delete_passages,
    export_passages,
    get_passages,
    list_passages,
)
from msmarco_qdrant.core.collection_types import CollectionSpec, PointBatch, PointId, SparseVector
from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    MissingExtraError,
    OutputError,
    PidCollisionError,
    StoreError,
    StoreNotFoundError,
    UsageError,
)
from msmarco_qdrant.filters import All, Exists, Not, SearchFilter
from msmarco_qdrant.filters import Any as Either
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES, Corpus
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.payload import payload_of, point_id
from msmarco_qdrant.testing import HashingEncoder, NullCollection, NullStore
from tests.engines import new_store


def filled(store: Store, passages: Iterable[Passage], collection: str = "msmarco") -> None:
    """Ingest passages into a collection."""
    ingest_passages(
        passages, store, collection=collection, encoder=HashingEncoder(), optimize=False
    )


def write_raw(store: Store, id_: PointId, payload: dict[str, Any]) -> None:
    """Write a point as another program would."""
    collection = store.collection("msmarco")
    spec = collection.info().spec
    vector = np.full((1, spec.dimension), 0.125, np.float32)
    sparse = [SparseVector([1], [1.0])]
    collection.upsert(PointBatch(spec.dense, [id_], vector, sparse, [payload]))


# ---- filters --------------------------------------------------------------------------------


def test_passages_are_counted_and_listed(store: Store, passages: Sequence[Passage]) -> None:
    """All of them, or those that match; the order is the same each time."""
    filled(store, passages)
    english = {"lang": "en"}

    assert (5, 2) == (count_passages(store), count_passages(store, meta_filter=english))
    assert {"1", "007"} == {one.pid for one in list_passages(store, meta_filter=english)}
    listed = list_passages(store)
    assert listed == list_passages(store, limit=5)
    assert listed[:2] == list_passages(store, limit=2)
    assert {one.pid: one for one in passages} == {one.pid: one for one in listed}
    invalid: list[Any] = [0, "5", 2.5, True]
    for limit in invalid:
        with pytest.raises(UsageError, match=f"limit must be 1 or more, got {limit!r}"):
            list_passages(store, limit=limit)
    nothing: Any = None
    with pytest.raises(UsageError, match="pids must be a list of pids, got None"):
        get_passages(store, nothing)


def test_passages_are_deleted_by_a_filter(store: Store, passages: Sequence[Passage]) -> None:
    """Those that match, once."""
    filled(store, passages)
    for deleted in (2, 0):
        assert deleted == delete_passages(store, meta_filter={"lang": "en"})
    assert {passage.pid for passage in passages} - {"1", "007"} == {
        one.pid for one in list_passages(store)
    }


_KEY = models.FieldCondition(key="meta.langg", match=models.MatchValue(value="en"))
_EMPTY = models.IsEmptyCondition(is_empty=models.PayloadField(key="meta.langg"))


@pytest.mark.parametrize(
    "chosen",
    [
        {"pid": Not("7")},
        {"langg": Not("en")},
        {"lang": Not("de"), "langg": Not(Exists())},
        Either([{"lang": "en"}, {"langg": "en"}]),
        All([Not({"langg": "en", "lang": "en"})]),
        {"lang": Not("nowhere"), "author": Not({"name": "Ada"})},
        models.Filter(must_not=[_KEY]),
        models.Filter(must=models.Filter(should=[models.Filter(must_not=[_KEY]), _EMPTY])),
    ],
)
def test_filter_on_a_field_of_no_passage_deletes_nothing(
    store: Store, passages: Sequence[Passage], chosen: SearchFilter
) -> None:
    """A misspelled field in a negation would match, and delete, every passage."""
    filled(store, passages)
    with pytest.raises(UsageError, match=r"nothing was deleted: .*, which no passage has"):
        delete_passages(store, meta_filter=chosen)
    assert len(passages) == count_passages(store)
    assert 0 == delete_passages(store, meta_filter={"langg": "en"})


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"pid": "1"}, "field 'pid' in meta: the pid of a passage is not in meta"),
        ({"lang:de": Exists()}, "field 'lang:de' in meta: for a value write lang=de"),
        ({"lang": 7}, "the field 'lang' has values such as .* the filter compares numbers"),
        ({"lang": "nowhere"}, None),
    ],
)
def test_s5_counts_lists_and_deletes_say_why_nothing_matches(
    store: Store,
    passages: Sequence[Passage],
    chosen: SearchFilter,
    reason: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each in one warning; none where the field is fine."""
    filled(store, passages)
    for call in (count_passages, list_passages, delete_passages):
        caplog.clear()
        assert not call(store, meta_filter=chosen)
        assert (reason is not None) == len(caplog.messages)
        assert reason is None or re.search(reason, caplog.text)


def test_s5_counts_say_what_a_negation_compares(
    store: Store, passages: Sequence[Passage], caplog: pytest.LogCaptureFixture
) -> None:
    """A match by absence alone looks like an answer; a delete of it is refused with the hint."""
    filled(store, passages)
    assert len(passages) == count_passages(store, meta_filter={"pid": Not("1")})
    assert "the pid of a passage is not in meta" in caplog.text
    with pytest.raises(UsageError, match="no passage has: the pid of a passage is not in meta"):
        delete_passages(store, meta_filter={"pid": Not("1")})
    caplog.clear()
    assert count_passages(store, meta_filter={"lang": Not("en")})
    assert not caplog.messages


def test_filter_deletes_no_points_of_others(
    store: Store, passages: Sequence[Passage], caplog: pytest.LogCaptureFixture
) -> None:
    """A matching point that is not a passage stays, with a warning."""
    filled(store, passages)
    write_raw(store, 7, {"meta": {"lang": "en"}})
    assert 2 == delete_passages(store, meta_filter={"lang": "en"})
    assert 4 == count_passages(store)
    assert "has points that are not passages" in caplog.text


def test_what_to_delete_is_said_once(store: Store) -> None:
    """Neither nothing, nor both, nor a filter without a condition."""
    for pids, chosen in ((None, None), (["1"], {"lang": "en"})):
        with pytest.raises(UsageError, match="pass either pids or meta_filter"):
            delete_passages(store, pids, meta_filter=chosen)
    empty: Sequence[SearchFilter] = ({}, models.Filter(), All([models.Filter(must=[])]))
    for without in empty:
        with pytest.raises(UsageError, match="meta_filter must have a condition"):
            delete_passages(store, meta_filter=without)


# ---- reading -------------------------------------------------------------------------------


def test_passages_are_found_by_their_pids(store: Store, passages: Sequence[Passage]) -> None:
    """Existing ones, once each, in the order of the pids, with text and meta."""
    filled(store, passages)
    pids = [passage.pid for passage in passages]

    found = get_passages(store, [*reversed(pids), "nowhere", "7", pids[0]])

    assert list(reversed(passages)) == list(found.values())
    assert list(reversed(pids)) == list(found)
    assert {} == get_passages(store, [])


@pytest.mark.parametrize("engine", ["edge", "loopback"])
def test_a_path_or_url_is_opened(engine: str, tmp_path: Path, passages: Sequence[Passage]) -> None:
    """Each call opens and closes it; a path may be a string or a Path."""
    with ExitStack() as stack:
        store = stack.enter_context(new_store(engine, tmp_path))
        filled(store, passages, "films")
        place = store.dsn
        if engine == "edge":
            stack.close()  # another handle can open it afterwards
        assert [passages[0]] == list(get_passages(place, ["1"], collection="films").values())
        if engine == "edge":
            assert ["1"] == list(get_passages(Path(place), ["1"], collection="films"))
        assert 1 == delete_passages(place, ["1"], collection="films")
        assert 4 == export_passages(place, tmp_path / "x.jsonl", collection="films")


@pytest.mark.parametrize("pid", ["", None, 7, b"7", "lone \ud800"])
def test_an_invalid_pid_is_refused(tmp_path: Path, pid: object) -> None:
    """Nothing is read or deleted."""
    with new_store("memory", tmp_path) as store:
        filled(store, [Passage("1", "one")])

        with pytest.raises(UsageError, match="pid"):
            get_passages(store, ["1", pid])  # type: ignore[list-item]
        with pytest.raises(UsageError, match="pid"):
            delete_passages(store, ["1", pid])  # type: ignore[list-item]
        assert ["1"] == list(get_passages(store, ["1"]))


def test_one_string_is_not_several_pids(tmp_path: Path) -> None:
    """Otherwise "12" would mean the passages 1 and 2."""
    for function in (get_passages, delete_passages):
        with new_store("memory", tmp_path) as store:
            filled(store, [Passage("1", "one"), Passage("2", "two")])
            with pytest.raises(UsageError, match="must be a list"):
                function(store, "12")


def test_a_missing_store_or_collection(tmp_path: Path) -> None:
    """Neither is created, nor a file."""
    place, file = tmp_path / "store", tmp_path / "out.jsonl"
    for call in (
        lambda: get_passages(place, ["1"]),
        lambda: delete_passages(place, ["1"]),
        lambda: export_passages(place, file),
    ):
        with pytest.raises(StoreNotFoundError):
            call()
    with new_store("memory", tmp_path) as store:
        for call in (
            lambda: get_passages(store, ["1"], collection="other"),
            lambda: delete_passages(store, ["1"], collection="other"),
            lambda: export_passages(store, file, collection="other"),
        ):
            with pytest.raises(CollectionNotFoundError, match="other"):
                call()
    assert [] == list(tmp_path.iterdir())


# ---- points of other programs --------------------------------------------------------------


def test_v5_a_point_of_another_pid_is_left_out(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is neither read nor exported, with one warning each, and a delete is refused."""
    filled(store, [Passage("1", "one")])
    write_raw(store, 2, payload_of(Passage("3", "three"), 1))

    assert ["1"] == [*get_passages(store, ["1", "2"])]
    with pytest.raises(PidCollisionError, match="'2'"):
        delete_passages(store, ["1", "2"])
    assert 1 == export_passages(store, tmp_path / "out.jsonl")
    assert 2 == store.collection("msmarco").info().points
    assert 2 == len(caplog.messages)
    assert all("such as point 2 (pid '3', which belongs" in line for line in caplog.messages)
    assert all("`msmarco-qdrant check msmarco --store " in line for line in caplog.messages)


@pytest.mark.parametrize("payload", [{}, {"pid": 2}, {"pid": "2"}, {"seq": 1}])
def test_v5_a_point_that_lost_its_pid_or_seq_is_not_deleted(
    tmp_path: Path, payload: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be anybody's: the error names the command that lists it; earlier pids are deleted."""
    monkeypatch.setattr(delete, "_BATCH", 1)
    with new_store("memory", tmp_path) as store:
        filled(store, [Passage("1", "one"), Passage("3", "three")])
        write_raw(store, 2, payload)
        match = "neither it nor a later pid was deleted.*`msmarco-qdrant check msmarco --store "
        with pytest.raises(PidCollisionError, match=match):
            delete_passages(store, ["1", "2", "3"])
        assert {2, 3} == {id_ for id_, _ in store.collection("msmarco").scan(())}


@pytest.mark.parametrize("payload", [{"pid": "2", "meta": {}}, {"pid": "2", "text": "two"}])
def test_a_point_without_text_or_meta(tmp_path: Path, payload: dict[str, object]) -> None:
    """It is neither read nor exported, but deleted."""
    with new_store("memory", tmp_path) as store:
        filled(store, [Passage("1", "one")])
        write_raw(store, 2, {**payload, "seq": 1})

        assert {} == get_passages(store, ["2"])
        assert 1 == export_passages(store, tmp_path / "out.jsonl")
        assert 1 == delete_passages(store, ["2"])


# ---- deleting ------------------------------------------------------------------------------


def test_passages_are_deleted(store: Store, passages: Sequence[Passage]) -> None:
    """Existing ones are counted; the others stay, are found, and can be written again."""
    filled(store, passages)

    assert 2 == delete_passages(store, iter(["2", "nowhere", "007", "2"]))

    rest = [passages[0], passages[3], passages[4]]
    assert rest == list(get_passages(store, [passage.pid for passage in passages]).values())
    assert 3 == store.collection("msmarco").info().points
    with SearchClient.open(store, encoder=HashingEncoder()) as client:
        assert {passage.pid for passage in rest} == {hit.pid for hit in client.search("city")}
    assert 0 == delete_passages(store, ["007"])
    filled(store, passages)
    assert [passages[2]] == list(get_passages(store, ["007"]).values())


# ---- exporting -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "name"),
    [
        ("edge", "out.jsonl"),
        ("memory", "out.ndjson"),
        ("memory", "OUT.JSONL.GZ"),
        ("memory", "out.parquet"),
        ("loopback", "out.jsonl.gz"),
    ],
    indirect=["store"],
)
def test_an_export_comes_back_unchanged(
    store: Store, tmp_path: Path, passages: Sequence[Passage], name: str
) -> None:
    """An ingest of the file finds all unchanged; into a new collection it writes them all."""
    filled(store, passages)
    file = tmp_path / name

    assert 5 == export_passages(store, file)

    again = ingest_passages(file, store, encoder=HashingEncoder(), optimize=False)
    assert (5, 5, 0) == (again.read, again.unchanged, again.rejected)
    filled(store, (row for row in Corpus(file) if isinstance(row, Passage)), "copy")
    pids = [passage.pid for passage in passages]
    assert passages == list(get_passages(store, pids, collection="copy").values())


def test_lines_are_as_documented(tmp_path: Path) -> None:
    """One object per line, in the order of ids; integers and floats stay distinct."""
    meta = {"lang": "de", "year": 2.0, "n": 2, "no": None, "deep": [{"a": {}}]}
    with new_store("edge", tmp_path) as store:
        filled(store, [Passage("2", "Mäuse\nund \u2028 mehr"), Passage("1", "one", meta)])
        export_passages(store, tmp_path / "x.jsonl")
        export_passages(store, tmp_path / "x.jsonl.gz")

    content = (tmp_path / "x.jsonl").read_bytes()
    first, second = content.decode().removesuffix("\n").split("\n")
    assert {"pid": "1", "text": "one", "meta": meta} == json.loads(first)
    assert ["pid", "text", "meta"] == list(json.loads(first))
    assert '"year": 2.0' in first
    assert '"n": 2' in first
    assert '{"pid": "2", "text": "Mäuse\\nund \u2028 mehr", "meta": {}}' == second
    assert content == gzip.decompress((tmp_path / "x.jsonl.gz").read_bytes())


def test_parquet_is_as_documented(tmp_path: Path) -> None:
    """Three columns of strings; the meta of different rows may differ in every type."""
    with new_store("memory", tmp_path) as store:
        filled(store, [Passage("1", "one", {"a": 1}), Passage("2", "two", {"a": ["x", None]})])
        export_passages(store, tmp_path / "x.parquet")

    table = pq.read_table(tmp_path / "x.parquet")
    assert {"pid": "string", "text": "string", "meta": "string"} == {
        field.name: str(field.type) for field in table.schema
    }
    assert [
        {"pid": "1", "text": "one", "meta": '{"a": 1}'},
        {"pid": "2", "text": "two", "meta": '{"a": ["x", null]}'},
    ] == table.to_pylist()


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
def test_an_empty_collection_is_an_empty_file(tmp_path: Path, name: str) -> None:
    """It can be read, and contains no passage."""
    with new_store("memory", tmp_path) as store:
        filled(store, [Passage("1", "one")])
        delete_passages(store, ["1"])

        assert 0 == export_passages(store, tmp_path / name)

    assert [] == list(Corpus(tmp_path / name))


@pytest.mark.parametrize("name", ["out", "out.tsv", "out.parquet.gz", "out.gz", "-", "jsonl"])
def test_an_unknown_form_is_refused(tmp_path: Path, name: str) -> None:
    """The message lists the accepted ones; the store is not opened."""
    with pytest.raises(UsageError, match=r"\.jsonl, \.ndjson, .*\.gz or \.parquet"):
        export_passages(tmp_path / "nowhere", name)

    assert [] == list(tmp_path.iterdir())


def test_parquet_without_its_extra_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message shows the command that installs it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # the import system's own "not installed"
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'msmarco-qdrant\[parquet\]'"):
        export_passages(tmp_path / "nowhere", tmp_path / "out.parquet")


def test_progress_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each batch, and at the end."""
    monkeypatch.setattr(passages_module, "_BATCH", 10)
    reports: list[tuple[int, int]] = []
    with new_store("memory", tmp_path) as store:
        filled(store, [Passage(str(number), f"text {number}") for number in range(25)])
        export_passages(
            store,
            tmp_path / "x.jsonl",
            on_progress=lambda done, total: reports.append((done, total)),
        )

    assert [(10, 25), (20, 25), (25, 25)] == reports


def test_a_line_too_long_to_be_read_back_causes_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the setting that reads it; the line is written."""
    long = Passage("1", "long " + "x" * MAX_LINE_BYTES)
    with new_store("memory", tmp_path) as store:
        filled(store, [long, Passage("2", "short")])
        export_passages(store, tmp_path / "x.parquet")
        assert "" == caplog.text
        with caplog.at_level(logging.WARNING):
            export_passages(store, tmp_path / "x.jsonl")

    assert "MSMARCO_QDRANT_MAX_LINE_BYTES" in caplog.text
    assert long in list(Corpus(tmp_path / "x.jsonl", max_line_bytes=2 * MAX_LINE_BYTES))
    assert long in list(Corpus(tmp_path / "x.parquet"))


# ---- failures ------------------------------------------------------------------------------


class ScannedCollection(NullCollection):
    """A collection whose scan yields passages from an iterable."""

    def __init__(self, name: str, spec: CollectionSpec, source: Iterable[Passage]) -> None:
        super().__init__(name, spec)
        self._source = source

    def scan(
        self,
        fields: Sequence[str],
        *,
        all_replicas: bool = False,  # noqa: ARG002
        meta_filter: SearchFilter | None = None,  # noqa: ARG002
        start: PointId | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Yield the points."""
        for passage in self._source:
            payload = payload_of(passage, 1)
            yield point_id(passage.pid), {field: payload[field] for field in fields}


class ScannedStore(NullStore):
    """A store of such collections."""

    def __init__(self, source: Iterable[Passage]) -> None:
        super().__init__()
        self._source = source

    def create_collection(
        self, name: str, spec: CollectionSpec, metadata: CollectionMetadata | None = None
    ) -> None:
        """Create one."""
        super().create_collection(name, spec, metadata)
        self._collections[name] = ScannedCollection(name, spec, self._source)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("out.jsonl", StoreError("the server is gone")),
        ("out.jsonl.gz", OSError("the cable")),
        ("out.parquet", KeyboardInterrupt()),
    ],
)
def test_a_store_that_fails_leaves_no_file(tmp_path: Path, name: str, error: BaseException) -> None:
    """Its error is raised as it is, and an older file stays."""

    def breaking() -> Iterator[Passage]:
        for number in range(3000):
            yield Passage(str(number), f"text {number}")
        raise error

    file = tmp_path / name
    file.write_bytes(b"older")
    store = ScannedStore(breaking())
    filled(store, [Passage("1", "one")])

    with pytest.raises(type(error)) as caught:
        export_passages(store, file)

    assert error is caught.value
    assert b"older" == file.read_bytes()
    assert [file] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_file_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    """Its folder is missing, or it is a directory. Nothing is read from the store."""

    def unread() -> Iterator[Passage]:
        pytest.fail("it was read")
        yield

    store = ScannedStore(unread())
    filled(store, [Passage("1", "one")])
    (tmp_path / name).mkdir()

    with pytest.raises(OutputError, match="No such file or directory"):
        export_passages(store, tmp_path / "missing" / name)
    with pytest.raises(OutputError, match="it is a directory"):
        export_passages(store, tmp_path / name)
    assert [tmp_path / name] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "out.jsonl",
        *(pytest.param(f"out.{end}", marks=pytest.mark.slow) for end in ("jsonl.gz", "parquet")),
    ],
)
def test_memory_does_not_grow_with_the_collection(tmp_path: Path, name: str) -> None:
    """Eighty million characters need less than 40 MB."""
    source = (Passage(str(n), f"{n} " + "x" * 500_000) for n in range(160))
    store = ScannedStore(source)
    filled(store, [Passage("1", "one")])
    tracemalloc.start()
    try:
        export_passages(store, tmp_path / name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 40_000_000


# ---- random passages -----------------------------------------------------------------------

characters = st.characters(codec="utf-8", exclude_characters="\x00")
pids = st.text(characters, min_size=1) | st.sampled_from(
    ["0", "7", "007", "-7", "7.0", " 7", str(2**64 - 1), str(2**64), "a\tb", "\ufeff"]
)
texts = st.tuples(st.text(characters), st.text(characters)).map(" word ".join)
# Qdrant reads a float of more than 15 digits back with an error in the last one, once.
floats = st.integers(-(10**9), 10**9).map(lambda number: number / 8)
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | floats
    | st.sampled_from([-0.0, 2.0, 1e22, 5e-324])
    | st.text(characters),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(characters), inner),
    max_leaves=6,
)
reserved = st.sampled_from(["pid", "_id", "id", "text", "title", "meta", "a.b", "a[0]", '"', ""])
metas = st.dictionaries(st.text(characters) | reserved, values, max_size=4)
collections = st.lists(
    st.builds(Passage, pids, texts, metas), max_size=6, unique_by=lambda passage: passage.pid
)


@pytest.fixture(scope="module", params=["memory", pytest.param("edge", marks=pytest.mark.slow)])
def lasting_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """A store for many examples."""
    with new_store(request.param, tmp_path_factory.mktemp("lasting")) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.jsonl", pytest.param("out.parquet", marks=pytest.mark.slow)])
@settings(max_examples=10, deadline=None, derandomize=True)
@given(passages=collections)
def test_any_passages_come_back_from_an_export(
    tmp_path_factory: pytest.TempPathFactory,
    lasting_store: Store,
    name: str,
    passages: list[Passage],
) -> None:
    """With the same types and digests."""
    file = tmp_path_factory.mktemp("export") / name
    filled(lasting_store, passages, "original")
    try:
        assert len(passages) == export_passages(lasting_store, file, collection="original")

        rows = [row for row in Corpus(file) if isinstance(row, Passage)]
        assert digests(passages) == digests(rows)
        for collection, unchanged in (("original", len(passages)), ("copy", 0)):
            report = ingest_passages(
                file,
                lasting_store,
                collection=collection,
                encoder=HashingEncoder(),
                optimize=False,
            )
            assert (unchanged, 0) == (report.unchanged, report.rejected)
        pids = [row.pid for row in rows]  # without any, no copy was created
        copied = get_passages(lasting_store, pids, collection="copy") if pids else {}
        assert digests(passages) == digests(copied.values())
    finally:
        for collection in lasting_store.aliases():
            drop_collection(lasting_store, collection)


def digests(passages: Iterable[Passage]) -> dict[str, tuple[str, str]]:
    """The digests that identify an unchanged passage; 2 and 2.0 differ."""
    return {p.pid: (text_digest(p.text), meta_digest(p.meta)) for p in passages}
