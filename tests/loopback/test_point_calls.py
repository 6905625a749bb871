"""Writes, reads and queries of points, with the real client."""

from __future__ import annotations

from qdrant_client import QdrantClient, models

from tests.loopback.conftest import NAME, point


def test_points_come_back_as_they_were_written(client: QdrantClient) -> None:
    """Vectors and payload on request; ids that are not there are left out."""
    (record,) = client.retrieve(NAME, [3, 99], with_vectors=True)
    assert isinstance(record.vector, dict)
    assert {"pid": "3", "seq": 3, "even": False} == record.payload
    assert [3.0, 1.0, 1.0, 1.0] == record.vector["dense"]
    assert models.SparseVector(indices=[7, 103], values=[1.0, 2.0]) == record.vector["bm25"]
    (record,) = client.retrieve(NAME, [3], with_payload=["pid"])
    assert ({"pid": "3"}, None) == (record.payload, record.vector)


def test_upserts_can_be_conditional(client: QdrantClient) -> None:
    """A filter on what is there, insert only, update only."""
    older = models.Filter(must=[models.FieldCondition(key="seq", range=models.Range(lt=3))])
    client.upsert(NAME, [point(2, by="filter"), point(4, by="filter")], update_filter=older)
    client.upsert(NAME, [point(3, by="insert")], update_mode=models.UpdateMode.INSERT_ONLY)
    client.upsert(NAME, [point(77, by="update")], update_mode=models.UpdateMode.UPDATE_ONLY)
    by = {one.id: (one.payload or {}).get("by") for one in client.scroll(NAME, limit=100)[0]}
    assert {1: None, 2: "filter", 3: None, 4: None, 5: None} == by


def test_points_without_vectors_are_written(client: QdrantClient) -> None:
    """The server takes a point of payload alone."""
    client.upsert(NAME, [models.PointStruct(id=9, vector={}, payload={"pid": "9"})])
    assert 6 == client.count(NAME).count


def test_scroll_pages_by_id_and_by_an_indexed_field(client: QdrantClient) -> None:
    """The next page's offset is the first id of it; order_by needs an index."""
    first, offset = client.scroll(NAME, limit=3)
    second, end = client.scroll(NAME, limit=3, offset=offset)
    assert ([1, 2, 3], [4, 5], None) == ([one.id for one in first], [one.id for one in second], end)
    client.create_payload_index(NAME, "seq", models.PayloadSchemaType.INTEGER)
    latest, _ = client.scroll(
        NAME, limit=2, order_by=models.OrderBy(key="seq", direction=models.Direction.DESC)
    )
    assert [5, 4] == [one.id for one in latest]


def test_counts_and_filters(client: QdrantClient) -> None:
    """A filter narrows a count, a scroll, a query and a deletion."""
    even = models.Filter(
        must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))]
    )
    assert 2 == client.count(NAME, count_filter=even).count
    assert [2, 4] == [one.id for one in client.scroll(NAME, scroll_filter=even)[0]]
    found = client.query_points(NAME, query=[1.0, 0, 0, 0], using="dense", query_filter=even)
    assert [4, 2] == [one.id for one in found.points]
    client.delete(NAME, models.FilterSelector(filter=even))
    assert 3 == client.count(NAME).count


def test_queries_dense_sparse_and_fused(client: QdrantClient) -> None:
    """Scores, order, params, a prefetch of each kind with fusion, and payload on request."""
    dense = client.query_points(
        NAME,
        query=[1.0, 0, 0, 0],
        using="dense",
        limit=2,
        search_params=models.SearchParams(hnsw_ef=16, exact=True),
        with_payload=["pid"],
    )
    assert [(5, 5.0), (4, 4.0)] == [(one.id, one.score) for one in dense.points]
    assert {"pid": "5"} == dense.points[0].payload
    words = models.SparseVector(indices=[103], values=[1.0])
    assert [3] == [one.id for one in client.query_points(NAME, query=words, using="bm25").points]
    fused = client.query_points(
        NAME,
        prefetch=[
            models.Prefetch(query=[1.0, 0, 0, 0], using="dense", limit=2),
            models.Prefetch(
                query=words, using="bm25", limit=2, params=models.SearchParams(hnsw_ef=8)
            ),
        ],
        query=models.FusionQuery(fusion=models.Fusion.RRF),
        with_payload=False,
    )
    assert {3, 4, 5} == {one.id for one in fused.points}
    assert not fused.points[0].payload


def test_a_batch_of_queries_and_groups(client: QdrantClient) -> None:
    """Each query's answer in its place; groups by a payload field."""
    one, two = client.query_batch_points(
        NAME,
        [
            models.QueryRequest(query=[1.0, 0, 0, 0], using="dense", limit=1),
            models.QueryRequest(query=[-1.0, 0, 0, 0], using="dense", limit=1),
        ],
    )
    assert ([5], [1]) == ([hit.id for hit in one.points], [hit.id for hit in two.points])
    groups = client.query_points_groups(
        NAME, group_by="pid", query=[1.0, 0, 0, 0], using="dense", limit=2, group_size=1
    )
    assert ["5", "4"] == [group.id for group in groups.groups]


def test_payload_and_vectors_are_changed_in_place(client: QdrantClient) -> None:
    """Set merges, overwrite replaces, delete takes out, clear empties; vectors alone too."""
    client.set_payload(NAME, {"lang": "en"}, points=[1, 2])
    client.overwrite_payload(NAME, {"pid": "3"}, points=[3])
    client.delete_payload(NAME, ["seq", "even"], points=[1])
    client.clear_payload(NAME, points_selector=[4])
    client.update_vectors(NAME, [models.PointVectors(id=5, vector={"dense": [9.0, 0, 0, 0]})])
    one, two, three, four, five = client.scroll(NAME, with_vectors=["dense"])[0]
    assert {"pid": "1", "lang": "en"} == one.payload
    assert {"pid": "2", "seq": 2, "even": True, "lang": "en"} == two.payload
    assert ({"pid": "3"}, {}) == (three.payload, four.payload)
    assert {"dense": [9.0, 0.0, 0.0, 0.0]} == five.vector


def test_a_batch_of_writes_is_done_in_order(client: QdrantClient) -> None:
    """Every kind of write that is served alone is served in a batch."""
    results = client.batch_update_points(
        NAME,
        [
            models.UpsertOperation(upsert=models.PointsList(points=[point(6), point(7)])),
            models.SetPayloadOperation(
                set_payload=models.SetPayload(payload={"lang": "en"}, points=[6])
            ),
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload={"a": 1, "b": 2}, points=[1])
            ),
            models.DeletePayloadOperation(
                delete_payload=models.DeletePayload(keys=["a"], points=[1])
            ),
            models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[2])),
            models.UpdateVectorsOperation(
                update_vectors=models.UpdateVectors(
                    points=[models.PointVectors(id=3, vector={"dense": [9.0, 0, 0, 0]})]
                )
            ),
            models.DeleteOperation(delete=models.PointIdsList(points=[7])),
        ],
    )
    assert ["completed"] * 7 == [one.status.value for one in results]
    records = {one.id: one for one in client.scroll(NAME, with_vectors=["dense"])[0]}
    assert {1, 2, 3, 4, 5, 6} == set(records)
    assert ({"b": 2}, {}) == (records[1].payload, records[2].payload)
    assert {"dense": [9.0, 0.0, 0.0, 0.0]} == records[3].vector
    assert "en" == (records[6].payload or {})["lang"]
