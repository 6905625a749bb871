"""Collections and aliases, with the real client."""

from __future__ import annotations

import pytest
from qdrant_client import QdrantClient, models

from tests.loopback import LoopbackServer
from tests.loopback.conftest import NAME, make_collection, point, point_alias


def test_collection_info_has_what_was_created(client: QdrantClient) -> None:
    """Params of both kinds of vectors, metadata, counts, and the server's defaults."""
    info = client.get_collection(NAME)
    vectors = info.config.params.vectors
    sparse = info.config.params.sparse_vectors
    assert isinstance(vectors, dict)
    assert sparse is not None
    assert models.VectorParams(size=4, distance=models.Distance.DOT) == vectors["dense"]
    assert models.Modifier.IDF == sparse["bm25"].modifier
    assert {"schema": 1, "model": {"name": "costless"}} == info.config.metadata
    assert (5, 0, 1) == (info.points_count, info.indexed_vectors_count, info.segments_count)
    assert models.CollectionStatus.GREEN == info.status
    assert (16, 100) == (info.config.hnsw_config.m, info.config.hnsw_config.ef_construct)
    assert 10000 == info.config.optimizer_config.indexing_threshold


def test_settings_of_a_new_collection_are_kept(client: QdrantClient) -> None:
    """Diffs are merged into the defaults; quantization and the unnamed vector are kept."""
    client.create_collection(
        "other",
        vectors_config=models.VectorParams(size=8, distance=models.Distance.COSINE),
        hnsw_config=models.HnswConfigDiff(m=32),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        ),
    )
    config = client.get_collection("other").config
    assert isinstance(config.params.vectors, models.VectorParams)
    assert (8, 32, 100) == (
        config.params.vectors.size,
        config.hnsw_config.m,
        config.hnsw_config.ef_construct,
    )
    assert 0 == config.optimizer_config.indexing_threshold
    assert isinstance(config.quantization_config, models.ScalarQuantization)


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


def test_collections_are_listed_and_deleted(client: QdrantClient) -> None:
    """By physical name; deleting takes the aliases along, and a second time says false."""
    make_collection(client, "passages__0002")
    point_alias(client, "passages", "passages__0002")
    assert [NAME, "passages__0002"] == [one.name for one in client.get_collections().collections]
    assert client.delete_collection("passages__0002")
    assert not client.delete_collection("passages__0002")
    assert [] == client.get_aliases().aliases


def test_an_alias_is_not_deleted_as_a_collection(client: QdrantClient) -> None:
    """Delete takes a physical name; an alias is no collection to it."""
    point_alias(client, "passages", NAME)
    assert not client.delete_collection("passages")
    assert 5 == client.count("passages").count


def test_reads_and_writes_go_by_alias(client: QdrantClient) -> None:
    """Info, update, upsert, delete, count, scroll and queries resolve it."""
    point_alias(client, "passages", NAME)
    client.upsert("passages", [point(6)])
    client.delete("passages", [1])
    client.update_collection("passages", metadata={"schema": 9})
    metadata = client.get_collection("passages").config.metadata
    assert metadata is not None
    assert 9 == metadata["schema"]
    assert 5 == client.count("passages").count
    assert [2, 3] == [one.id for one in client.scroll("passages", limit=2)[0]]
    assert client.query_points("passages", query=[1.0, 0, 0, 0], using="dense", limit=1).points
    assert client.collection_exists("passages")
    assert not client.collection_exists("nothing")


def test_an_alias_is_pointed_elsewhere_without_a_word(client: QdrantClient) -> None:
    """Creating one that exists replaces it; lists tell; renaming and deleting work."""
    make_collection(client, "passages__0002")
    point_alias(client, "passages", NAME)
    point_alias(client, "passages", "passages__0002")
    assert [] == client.get_collection_aliases(NAME).aliases
    (one,) = client.get_collection_aliases("passages__0002").aliases
    assert ("passages", "passages__0002") == (one.alias_name, one.collection_name)
    client.update_collection_aliases(
        [
            models.RenameAliasOperation(
                rename_alias=models.RenameAlias(old_alias_name="passages", new_alias_name="new")
            )
        ]
    )
    assert ["new"] == [one.alias_name for one in client.get_aliases().aliases]
    gone = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="new"))
    client.update_collection_aliases([gone, gone])
    assert [] == client.get_aliases().aliases


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
