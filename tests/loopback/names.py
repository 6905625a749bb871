"""How calls are named: `Points.Upsert`, or `Upsert` where one service alone has it."""

from __future__ import annotations

from functools import cache

from qdrant_client.grpc import collections_service_pb2, points_service_pb2, qdrant_pb2

_SERVICES = (
    qdrant_pb2.DESCRIPTOR.services_by_name["Qdrant"],
    collections_service_pb2.DESCRIPTOR.services_by_name["Collections"],
    points_service_pb2.DESCRIPTOR.services_by_name["Points"],
)

SNAPSHOTS = tuple(f"Snapshots.{one}" for one in ("create", "list", "delete", "download", "upload"))
"""Calls that only REST serves here."""


@cache
def rpc_names() -> frozenset[str]:
    """The long name of every call that the protobufs know, served or not, and of those of REST."""
    names = {f"{one.name}.{method.name}" for one in _SERVICES for method in one.methods}
    return frozenset({*names, *SNAPSHOTS})


@cache
def rpc_name(name: str) -> str:
    """The long name for a long or a short one.

    Raises:
        ValueError: there is no such call, or the short name is that of two.
    """
    if name in rpc_names():
        return name
    found = sorted(one for one in rpc_names() if one.partition(".")[2] == name)
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"{name!r} is in two services: say {' or '.join(found)}"
        if found
        else f"no call is named {name!r}: it is one of {', '.join(sorted(rpc_names()))}"
    )


def rpc_of_path(path: str) -> str:
    """`/qdrant.Points/Upsert` as `Points.Upsert`."""
    service, _, method = path.rpartition("/")
    return f"{service.rpartition('.')[2]}.{method}"


def rpc_matches(wanted: str | None, rpc: str) -> bool:
    """Whether `rpc` is the call that is wanted; None wants any."""
    return wanted is None or wanted == rpc
