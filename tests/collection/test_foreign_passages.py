"""The passages of another program's collection, on a server and in a folder of the local mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import QdrantClient, models

from msmarco_qdrant import ForeignPassages, Passage, get_passages, ingest_passages, open_store
from msmarco_qdrant.collection.scroll import scroll_passages
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    IngestStoppedError,
    MsmarcoQdrantError,
    SourceError,
    StoreCorruptError,
    StoreInUseError,
    StoreNotFoundError,
    UnsupportedError,
    UsageError,
)
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer

UUIDS = [UUID(int=number) for number in range(600)]


def write(client: QdrantClient, name: str, payloads: list[dict[str, Any]]) -> None:
    """Create a collection of another program, with UUIDs in the order of the payloads."""
    vectors = models.VectorParams(size=2, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config=vectors)
    points = [
        models.PointStruct(id=str(id_), vector=[1.0, 0.5], payload=payload)
        for id_, payload in zip(UUIDS, payloads, strict=False)
    ]
    if points:
        client.upsert(name, points)


def pages(count: int) -> list[dict[str, Any]]:
    """Payloads of LangChain."""
    return [{"page_content": f"page {n}", "metadata": {"n": n}} for n in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the local mode with one collection of 600 pages."""
    client = QdrantClient(path=str(tmp_path / "local"))
    write(client, "docs", pages(600))
    client.close()
    return tmp_path / "local"


@pytest.fixture
def other(server: LoopbackServer) -> Iterator[QdrantClient]:
    """A client of another program."""
    client = QdrantClient(
        url=server.rest_url, grpc_port=server.port, prefer_grpc=True, check_compatibility=False
    )
    yield client
    client.close()


def test_a_folder_is_adopted_and_then_unchanged(folder: Path, tmp_path: Path) -> None:
    """Every page is a passage with its point's id; a second run writes nothing."""
    store = tmp_path / "store"
    for written in (600, 0):
        with ForeignPassages.open("docs", folder) as source:
            report = ingest_passages(source, store, encoder=HashingEncoder(), optimize=False)
        assert (600, written, 0) == (report.read, report.written, report.rejected)
        assert ({"langchain": 600}, 0) == (source.shapes, source.duplicates)
    found = get_passages(store, [str(UUIDS[7])])
    assert Passage(str(UUIDS[7]), "page 7", {"n": 7}) == found[str(UUIDS[7])]


def test_a_server_is_its_own_target(server: LoopbackServer, other: QdrantClient) -> None:
    """Points are read page by page, and written into a collection beside it."""
    write(other, "docs", pages(300))

    with open_store(server.url) as store, ForeignPassages.open("docs", store) as source:
        ingest_passages(source, store, collection="mine", encoder=HashingEncoder())
        passages = [*scroll_passages(store, collection="mine")]

    assert {f"page {n}" for n in range(300)} == {passage.text for passage in passages}
    assert 300 == len(passages)


def test_points_of_one_text_and_meta_are_one_passage(
    server: LoopbackServer, other: QdrantClient
) -> None:
    """As LangChain doubles them with random ids; another meta is another passage."""
    write(other, "docs", [*pages(2), *pages(2), {"page_content": "page 1", "metadata": {}}])

    with ForeignPassages.open("docs", server.url) as source:
        by_point = [row.pid for row in source if isinstance(row, Passage)]
        assert [str(UUIDS[0]), str(UUIDS[1]), str(UUIDS[4])] == by_point
        assert ({"langchain": 5}, 2) == (source.shapes, source.duplicates)
    other.delete("docs", [str(UUIDS[0])])
    with ForeignPassages.open("docs", server.url, pids="content") as source:
        pids = {row.text: row.pid for row in source if isinstance(row, Passage)}
    write(other, "again", [{}, *pages(1)][1:])
    with ForeignPassages.open("again", server.url, pids="content") as source:
        assert [pids["page 0"]] == [row.pid for row in source if isinstance(row, Passage)]


def test_shapes_may_be_mixed_and_other_points_are_rejected(
    server: LoopbackServer, other: QdrantClient
) -> None:
    """A reject names its point and has its payload."""
    bodies: list[dict[str, Any]] = [{"body": 5, "pid": "8"}, {"body": "", "pid": "9"}, {}]
    plain: list[dict[str, Any]] = [{"body": "a text", "pid": 7}, {"n": 1}, *bodies]
    write(other, "docs", [*pages(1), *plain])

    with ForeignPassages.open("docs", server.url, pid_field="pid") as source:
        rows = [*source]

    assert {"langchain": 1, "plain": 5} == source.shapes
    assert [Passage("7", "a text", {"pid": 7})] == [r for r in rows if isinstance(r, Passage)]
    reasons = {row.source.split()[-1]: row.reason for row in rows if isinstance(row, Reject)}
    assert "no field 'pid' for the pid" == reasons[str(UUIDS[0])]
    assert "no field 'body' for the text" in reasons[str(UUIDS[2])]
    assert "must be a string" in reasons[str(UUIDS[3])]
    assert 5 == len(reasons)


def test_fewer_points_than_counted_end_the_ingest(
    server: LoopbackServer, other: QdrantClient, tmp_path: Path
) -> None:
    """A page that ends early, as with a lost shard, is not taken for the end."""
    write(other, "docs", pages(300))

    with open_store(server.url) as store:
        points = store.point_reader("docs")
        whole = points.scan
        points.scan = lambda: (point for point, _ in zip(whole(), range(290), strict=False))  # type: ignore[method-assign]
        with pytest.raises(IngestStoppedError, match="has 300 points, but only 290 could be read"):
            ingest_passages(
                ForeignPassages(points), tmp_path / "store", encoder=HashingEncoder(), prune=True
            )
    with pytest.raises(CollectionNotFoundError):
        [*scroll_passages(tmp_path / "store")]


def test_an_empty_collection_creates_nothing(server: LoopbackServer, other: QdrantClient) -> None:
    """As a file without passages."""
    write(other, "docs", [])

    with ForeignPassages.open("docs", server.url) as source:
        assert [] == [*source]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"collection": "dosc"},
            CollectionNotFoundError,
            "no collection 'dosc' in .*; it has docs",
        ),
        ({"store": "missing"}, StoreNotFoundError, "no folder missing"),
        ({"store": "."}, StoreCorruptError, "is not a folder that QdrantClient.path=.* wrote"),
        ({"text_field": ""}, UsageError, "text_field must be the name of a field, got ''"),
        ({"pid_field": 3}, UsageError, "pid_field must be the name of a field, got 3"),
        ({"pids": "text"}, UsageError, "pids must be point or content, got 'text'"),
        (
            {"pids": "content", "pid_field": "n"},
            UsageError,
            "pass pid_field='n' or pids='content', not both",
        ),
        ({"store": 5}, UsageError, "store must be an open store, a path or a URL, got an int"),
    ],
)
def test_mistakes_are_refused(
    folder: Path, arguments: dict[str, Any], error: type[MsmarcoQdrantError], message: str
) -> None:
    """Each with the next step."""
    with pytest.raises(error, match=message):
        ForeignPassages.open(**{"collection": "docs", "store": folder, **arguments})


def test_stores_of_this_package_are_refused(server: LoopbackServer, tmp_path: Path) -> None:
    """Its collections have their passages already; a folder of Edge has no others."""
    rows = [Passage("1", "a text")]
    ingest_passages(rows, server.url, encoder=HashingEncoder())
    ingest_passages(rows, tmp_path / "edge", encoder=HashingEncoder(), optimize=False)

    for name in ("msmarco", "msmarco__0001"):
        with pytest.raises(UsageError, match=f"'{name}' in .* is already one of msmarco-qdrant"):
            ForeignPassages.open(name, server.url)
    with pytest.raises(StoreCorruptError, match="is not a folder that QdrantClient"):
        ForeignPassages.open("msmarco", tmp_path / "edge")
    with open_store(tmp_path / "edge") as store, pytest.raises(UnsupportedError, match="'docs'"):
        ForeignPassages.open("docs", store)


@pytest.mark.filterwarnings("ignore:.*lock:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of qdrant-client
def test_an_open_folder_is_refused(folder: Path) -> None:
    """The message names it."""
    client = QdrantClient(path=str(folder))
    with pytest.raises(StoreInUseError, match=r"another client has opened .*local: close it"):
        ForeignPassages.open("docs", folder)
    client.close()


def test_an_unknown_text_is_an_error_of_the_source(
    server: LoopbackServer, other: QdrantClient, tmp_path: Path
) -> None:
    """Nothing is created."""
    write(other, "docs", [{"q": "how big is it", "a": "it is very big"}])

    with (
        ForeignPassages.open("docs", server.url) as source,
        pytest.raises(SourceError, match="several fields can be the text: a, q"),
    ):
        ingest_passages(source, tmp_path / "store", encoder=HashingEncoder())
    assert not (tmp_path / "store").exists()
