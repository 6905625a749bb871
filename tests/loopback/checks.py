"""What the real server refuses and local mode lets through, or refuses in other words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qdrant_client import grpc

from tests.loopback.configs import vector_params
from tests.loopback.engine import Engine
from tests.loopback.statuses import Mistake


def limit(request: Any, field: str = "limit") -> None:
    """Refuse a limit of zero."""
    if request.HasField(field) and getattr(request, field) < 1:
        raise Mistake.INVALID_FIELD.refusal(
            field=field, problem="value 0 invalid, must be 1 or larger"
        )


def dimensions(params: grpc.CollectionParams, points: Iterable[grpc.PointStruct]) -> None:
    """Refuse an upsert with a dense vector of another size: checked before the WAL."""
    dense = vector_params(params.vectors_config)
    for point in points:
        for name, vector in _named(point.vectors).items():
            if name not in dense:
                continue
            for got in _sizes(vector):
                if got != dense[name].size:
                    raise _wrong_dimension(name, dense[name].size, got)


def vectors(params: grpc.CollectionParams, points: Iterable[Any]) -> None:
    """Refuse a write with an unknown vector name or a wrong kind: found when it is applied."""
    dense = vector_params(params.vectors_config)
    sparse = params.sparse_vectors_config.map
    for point in points:
        for name, vector in _named(point.vectors).items():
            if name not in dense and name not in sparse:
                raise Mistake.NO_VECTOR_NAME.refusal(name=name)
            if _is_sparse(vector) != (name in sparse):
                raise Mistake.WRONG_VECTOR_KIND.refusal()
            for got in _sizes(vector):
                if name in dense and got != dense[name].size:
                    expected = dense[name].size
                    raise Mistake.WRONG_DIMENSION.refusal(expected=expected, got=got)


def query(engine: Engine, name: str, request: Any) -> None:
    """Refuse what the server refuses, in a query and in each of its prefetches."""
    limit(request)
    for prefetch in request.prefetch:
        query(engine, name, prefetch)
    kind = request.query.WhichOneof("variant")
    if kind == "order_by":
        engine.require_range_index(name, request.query.order_by.key)
    elif kind == "nearest":
        _query_vector(engine.shelves[name].config.params, request.using, request.query.nearest)


def _query_vector(params: grpc.CollectionParams, using: str, vector: grpc.VectorInput) -> None:
    """Refuse a vector name that there is not, and a dense vector of another size."""
    dense = vector_params(params.vectors_config)
    if using in params.sparse_vectors_config.map:
        return
    if using not in dense:
        raise Mistake.NO_VECTOR_NAME.refusal(name=using)
    if vector.WhichOneof("variant") != "dense":
        return
    expected, got = dense[using].size, len(vector.dense.data)
    if expected != got:
        raise Mistake.WRONG_DIMENSION.refusal(expected=expected, got=got)


def _wrong_dimension(name: str, expected: int, got: int) -> Exception:
    """The upsert's message names the vector, if it has a name."""
    if not name:
        return Mistake.WRONG_DIMENSION.refusal(expected=expected, got=got)
    return Mistake.WRONG_DIMENSION_OF.refusal(expected=expected, got=got, name=name)


def _named(struct: grpc.Vectors) -> dict[str, grpc.Vector]:
    """A point's vectors by name; the unnamed one has the empty name."""
    kind = struct.WhichOneof("vectors_options")
    if kind == "vector":
        return {"": struct.vector}
    return dict(struct.vectors.vectors) if kind == "vectors" else {}


def _is_sparse(vector: grpc.Vector) -> bool:
    """Whether a vector is sparse, in the new form or the deprecated one."""
    return vector.WhichOneof("vector") == "sparse" or vector.HasField("indices")


def _sizes(vector: grpc.Vector) -> list[int]:
    """The sizes of a dense vector or of a multivector's rows; a sparse vector has none."""
    kind = vector.WhichOneof("vector")
    if kind == "dense":
        return [len(vector.dense.data)]
    if kind == "multi_dense":
        return [len(row.data) for row in vector.multi_dense.vectors]
    # the deprecated form is a bare list of floats
    return [len(vector.data)] if kind is None and not _is_sparse(vector) else []
