"""Calls whose answer the local mode does not give by itself, with the real client."""

from __future__ import annotations

import pytest
from qdrant_client import QdrantClient, models

from tests.loopback import LoopbackServer
from tests.loopback.conftest import NAME, point, point_alias


def test_update_merges_settings_and_metadata(client: QdrantClient) -> None:
    """What an update leaves out stays; metadata merges by top-level key, a null removes one."""
    client.update_collection(
        NAME,
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
        vectors_config={"dense": models.VectorParamsDiff(on_disk=True)},
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        ),
        metadata={"model": {"revision": "2"}, "migrations": ["0001"], "schema": None},
    )
    config = client.get_collection(NAME).config
    assert isinstance(config.params.vectors, dict)
    assert {"model": {"revision": "2"}, "migrations": ["0001"]} == config.metadata
    assert (True, 4) == (
        config.params.vectors["dense"].on_disk,
        config.params.vectors["dense"].size,
    )
    assert (1, 5) == (
        config.optimizer_config.indexing_threshold,
        config.optimizer_config.flush_interval_sec,
    )
    client.update_collection(NAME, quantization_config=models.Disabled.DISABLED)
    assert client.get_collection(NAME).config.quantization_config is None


def test_vectors_above_the_threshold_count_as_indexed(client: QdrantClient) -> None:
    """As an optimized server says it, unless a test says another number."""
    client.update_collection(
        NAME, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1)
    )
    client.upsert(NAME, [point(number) for number in range(100)])
    assert 100 == client.get_collection(NAME).indexed_vectors_count


def test_status_is_what_a_test_says(server: LoopbackServer, client: QdrantClient) -> None:
    """For some answers, then for all; red with the optimizer's error."""
    server.set_status(NAME, "yellow", calls=2)
    server.set_status(NAME, "red", optimizer_error="disk is full", indexed_vectors_count=3)
    infos = [client.get_collection(NAME) for _ in range(4)]
    assert ["yellow", "yellow", "red", "red"] == [info.status.value for info in infos]
    assert models.OptimizersStatusOneOf1(error="disk is full") == infos[-1].optimizer_status
    assert 3 == infos[-1].indexed_vectors_count
    server.set_status(NAME, "green")
    assert "green" == client.get_collection(NAME).status.value
    with pytest.raises(ValueError, match="green, yellow, red or grey"):
        server.set_status(NAME, "blue")


def test_grey_ends_when_the_optimizers_start(server: LoopbackServer, client: QdrantClient) -> None:
    """Metadata alone does not start them; settings do, even empty ones, and a write does."""
    server.set_status(NAME, "grey")
    client.update_collection(NAME, metadata={"schema": 2})
    assert "grey" == client.get_collection(NAME).status.value
    client.update_collection(NAME, optimizers_config=models.OptimizersConfigDiff())
    assert "green" == client.get_collection(NAME).status.value
    server.set_status(NAME, "grey")
    client.delete(NAME, [99])
    assert "green" == client.get_collection(NAME).status.value


def test_an_alias_is_not_deleted_as_a_collection(client: QdrantClient) -> None:
    """Delete takes a physical name; an alias is no collection to it."""
    point_alias(client, "passages", NAME)
    assert not client.delete_collection("passages")
    assert 5 == client.count("passages").count


def test_payload_indexes_are_kept(client: QdrantClient) -> None:
    """Local mode forgets them; Get collection tells type, params and how many points have one."""
    client.create_payload_index(NAME, "seq", models.PayloadSchemaType.INTEGER)
    client.create_payload_index(
        NAME, "meta.lang", models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD)
    )
    schema = client.get_collection(NAME).payload_schema
    assert {"seq", "meta.lang"} == set(schema)
    assert (models.PayloadSchemaType.INTEGER, 5) == (schema["seq"].data_type, schema["seq"].points)
    assert isinstance(schema["meta.lang"].params, models.KeywordIndexParams)
    assert 0 == schema["meta.lang"].points
    client.delete_payload_index(NAME, "seq")
    client.delete_payload_index(NAME, "never")
    assert {"meta.lang"} == set(client.get_collection(NAME).payload_schema)


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
