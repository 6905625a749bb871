"""The Collections service, on the engine. The server calls it under its lock."""
# ruff: noqa: N802, ARG002  # the names and the arguments are those of the protobuf service

from __future__ import annotations

from typing import Any

from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from tests.loopback import configs
from tests.loopback.engine import Engine
from tests.loopback.statuses import Mistake


class CollectionsService(grpc.CollectionsServicer):
    """Collections and aliases."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def Get(
        self, request: grpc.GetCollectionInfoRequest, context: Any
    ) -> grpc.GetCollectionInfoResponse:
        """Answer config, counts, indexes and state, by alias or physical name."""
        name = self._engine.resolve(request.collection_name)
        shelf = self._engine.shelves[name]
        health = shelf.next_health()
        points = self._engine.count(name)
        indexed = health.indexed_vectors_count
        info = grpc.CollectionInfo(
            status=grpc.CollectionStatus.Value(health.status),
            optimizer_status=grpc.OptimizerStatus(
                ok=not health.optimizer_error, error=health.optimizer_error
            ),
            segments_count=1,
            config=shelf.config,
            points_count=points,
            indexed_vectors_count=configs.indexed_vectors(shelf.config, points)
            if indexed is None
            else indexed,
            update_queue=grpc.UpdateQueueInfo(length=0),
        )
        hidden = shelf.keyed.lacks_shards(self._engine.version)
        for key, index in () if hidden else shelf.indexes.items():
            info.payload_schema[key].CopyFrom(index)
            info.payload_schema[key].points = self._engine.indexed_points(name, key)
        return grpc.GetCollectionInfoResponse(result=info)

    def List(
        self, request: grpc.ListCollectionsRequest, context: Any
    ) -> grpc.ListCollectionsResponse:
        """Answer the physical names."""
        return grpc.ListCollectionsResponse(
            collections=[
                grpc.CollectionDescription(name=name) for name in sorted(self._engine.shelves)
            ]
        )

    def Create(
        self, request: grpc.CreateCollection, context: Any
    ) -> grpc.CollectionOperationResponse:
        """Make a collection."""
        name = request.collection_name
        configs.check_new(request)
        if name in self._engine.shelves:
            raise Mistake.COLLECTION_EXISTS.refusal(name=name)
        if name in self._engine.aliases:
            raise Mistake.NAME_IS_ALIAS.refusal(name=name)
        params = models.CreateCollection(
            vectors=GrpcToRest.convert_vectors_config(request.vectors_config)
            if request.vectors_config.WhichOneof("config")
            else None,
            sparse_vectors=GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config)
            if request.HasField("sparse_vectors_config")
            else None,
        )
        config = configs.created(request)
        self._engine.complete(config, request)
        self._engine.create(name, params, config)
        return grpc.CollectionOperationResponse(result=True)

    def Update(
        self, request: grpc.UpdateCollection, context: Any
    ) -> grpc.CollectionOperationResponse:
        """Merge settings and metadata into a collection's; new settings start the optimizers."""
        shelf = self._engine.shelf(request.collection_name)
        configs.update(shelf.config, request)
        if configs.starts_optimizers(request):
            shelf.optimize()
        return grpc.CollectionOperationResponse(result=True)

    def Delete(
        self, request: grpc.DeleteCollection, context: Any
    ) -> grpc.CollectionOperationResponse:
        """Remove a collection and its aliases; result is false when there is none."""
        removed = self._engine.delete(request.collection_name)
        return grpc.CollectionOperationResponse(result=removed)

    def UpdateAliases(
        self, request: grpc.ChangeAliases, context: Any
    ) -> grpc.CollectionOperationResponse:
        """Create and delete aliases in order; no reader sees a part of it.

        As on the real server, what came before a refused action stays.
        """
        if any(action.WhichOneof("action") is None for action in request.actions):
            raise Mistake.MALFORMED_ALIAS.refusal()
        for action in request.actions:
            self._change(action)
        return grpc.CollectionOperationResponse(result=True)

    def _change(self, action: grpc.AliasOperations) -> None:
        """Apply one action. An alias that exists is pointed elsewhere without a word."""
        engine, aliases = self._engine, self._engine.aliases
        kind = action.WhichOneof("action")
        if kind == "create_alias":
            name, alias = action.create_alias.collection_name, action.create_alias.alias_name
            if name not in engine.shelves:
                raise Mistake.NO_COLLECTION.refusal(name=name)
            if alias in engine.shelves:
                raise Mistake.COLLECTION_EXISTS.refusal(name=alias)
            aliases[alias] = name
        else:
            aliases.pop(action.delete_alias.alias_name, None)

    def ListAliases(
        self, request: grpc.ListAliasesRequest, context: Any
    ) -> grpc.ListAliasesResponse:
        """Answer every alias."""
        return grpc.ListAliasesResponse(
            aliases=[
                grpc.AliasDescription(alias_name=alias, collection_name=name)
                for alias, name in sorted(self._engine.aliases.items())
            ]
        )

    def CollectionClusterInfo(
        self, request: grpc.CollectionClusterInfoRequest, context: Any
    ) -> grpc.CollectionClusterInfoResponse:
        """Answer the shards of a collection, all of them on this node."""
        name = self._engine.resolve(request.collection_name)
        shelf = self._engine.shelves[name]
        each = shelf.config.params.shard_number
        keys = shelf.keyed.keys if shelf.keyed.is_custom else [None]
        local = [
            grpc.LocalShardInfo(
                shard_id=number,
                points_count=self._engine.count(name) if number == 0 else 0,
                state=grpc.ReplicaState.Active,
                shard_key=None if key is None else grpc.ShardKey(keyword=key),
            )
            for number, key in enumerate(key for key in keys for _ in range(each))
        ]
        return grpc.CollectionClusterInfoResponse(
            peer_id=1, shard_count=len(local), local_shards=local
        )

    def CreateShardKey(
        self, request: grpc.CreateShardKeyRequest, context: Any
    ) -> grpc.CreateShardKeyResponse:
        """Create the shards of a key."""
        name, key = request.collection_name, request.request.shard_key.keyword
        self._engine.shelf(name).keyed.create(key, name)
        return grpc.CreateShardKeyResponse(result=True)

    def CollectionExists(
        self, request: grpc.CollectionExistsRequest, context: Any
    ) -> grpc.CollectionExistsResponse:
        """Answer whether there is a collection or an alias of that name."""
        exists = request.collection_name in {*self._engine.shelves, *self._engine.aliases}
        return grpc.CollectionExistsResponse(result=grpc.CollectionExists(exists=exists))
