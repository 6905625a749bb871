"""The choice between gRPC and REST, made when a store is opened and before anything is written.

The two ports of a URL may be two servers: a published port that another container has, a tunnel, a
port left over in the environment. So who answers by gRPC must be who answers by REST: the same
title, version and commit, and the same names of collections and aliases, as far as the key may list
them. Two servers that are equal in all of this, such as two new ones, are not detected. The key
is sent to the gRPC port only after title, version and commit were compared, which needs no key.
Without a key, version and commit may differ if there are collections and their names are the same:
one address may have two nodes of a cluster behind it, during an upgrade.

======================= ============================== ====================================
answers                 transport auto                 gRPC required: transport grpc, or a
                                                       `grpc_port` with an http(s):// URL
======================= ============================== ====================================
both, one server        gRPC                           gRPC
both, two servers       REST, and a warning            StoreError
REST only               REST, and a warning            REST and a warning, if auto
gRPC only               gRPC at the default ports      gRPC
                        6333 and 6334, else
                        StoreUnavailableError
======================= ============================== ====================================

In a forked child whose parent has used gRPC, only REST works: `auto` takes it with a warning, and
where gRPC is required that is a `StoreError`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

from qdrant_client import QdrantClient

from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.runtime.forks import FORK_ADVICE, ThreadedLibrary
from msmarco_qdrant.stores.connection import Address, Connection
from msmarco_qdrant.stores.error_mapping import (
    describe_error,
    is_access_error,
    is_transient,
    map_error,
)
from msmarco_qdrant.stores.server.arguments import client_arguments
from msmarco_qdrant.stores.server.retry import RetryPolicy

_log = logging.getLogger(__name__)

GRPC = ThreadedLibrary()
"""gRPC: a call in a forked child may wait for ever, despite its time limit."""

_PROBE_S = 3.0
_GRPC_RETRY_S = 0.5
"""A starting server may answer by REST first."""

_READ_AGAIN = 2
"""Another client may create a collection between two answers."""

COST = "a write takes twice the processor time and three times the bytes"


Build = tuple[str, str, str]
"""Title, version, and commit or ""."""


class _Identity(NamedTuple):
    """The answers that identify a server."""

    title: str
    version: str
    commit: str
    names: tuple[frozenset[str] | None, frozenset[str] | None]


class _OtherServiceError(StoreError):
    """Another service than Qdrant answers."""


def choose_transport(dsn: str, address: Address, connection: Connection, total_s: float) -> Address:
    """Return the address with the transport to speak, "grpc" or "rest".

    Args:
        dsn: The URL, for messages.
        address: The address in it.
        connection: The connection's settings.
        total_s: Seconds for which a server that does not answer is asked again.

    Raises:
        StoreUnavailableError: If no server answers.
        StoreError: If gRPC is required and another server answers there.
    """
    if address.grpc_port is None and connection.transport == "auto":
        _warn(dsn, "a URL with a path or with port 80 or 443 implies no gRPC port")
    if GRPC.is_lost and address.transport != "rest":
        return _avoid_grpc(dsn, address, connection)
    if address.rest_port is None or address.grpc_port is None or address.transport == "rest":
        return address
    probe = partial(_probe, dsn, address, connection)
    try:
        return replace(address, transport=RetryPolicy(total_s).call(probe))
    except _OtherServiceError as exc:
        raise StoreError(f"connecting in {dsn} failed: {exc}; check the port of the URL") from None
    except StoreError:
        raise
    except Exception as exc:
        raise map_error(exc, "connecting", dsn) from exc


def _avoid_grpc(dsn: str, address: Address, connection: Connection) -> Address:
    """Return the address with REST, in a forked child whose parent used gRPC.

    Raises:
        StoreError: If gRPC is required.
    """
    reason = "gRPC does not work in a process that was forked after its parent used it"
    if address.rest_port is None or connection.transport == "grpc":
        raise StoreError(
            f"{reason}: {FORK_ADVICE}, or use an http(s):// URL and another transport than grpc"
        )
    _warn(dsn, reason)
    return replace(address, transport="rest")


def _probe(dsn: str, address: Address, connection: Connection) -> Literal["grpc", "rest"]:
    """Ask at both ports once, and choose; see the table above.

    Raises:
        Exception: The client's, if no server answers that could be used.
    """
    required = connection.transport == "grpc" or connection.grpc_port is not None
    rest = _client(address, connection, "rest")
    grpc = _client(address, connection, "grpc")
    keyless = _client(address, replace(connection, api_key=None), "grpc")
    with closing(rest), closing(grpc), closing(keyless):
        try:
            one = _identify(rest)
        except Exception as exc:  # noqa: BLE001  # any: gRPC may answer
            return _choose_without_rest(address, required, keyless, exc)
        try:
            identify = partial(_identify_other, keyless, grpc, bool(connection.api_key))
            other = RetryPolicy(_GRPC_RETRY_S).call(partial(identify, one))
        except Exception as exc:
            if connection.transport == "grpc":
                raise
            _warn(dsn, f"gRPC does not answer at {address.grpc_target} ({describe_error(exc)})")
            return "rest"
        for _ in range(_READ_AGAIN):
            if _difference(one, other):
                one = _identify(rest)
                other = identify(one)
        return _choose_checked(dsn, address, required, _difference(one, other))


def _choose_without_rest(
    address: Address, required: bool, keyless: QdrantClient, failure: Exception
) -> Literal["grpc"]:
    """Choose when REST has failed."""
    try:
        _build(keyless)
    except Exception:
        if is_transient(failure):
            raise
        raise failure from None
    if required or address.has_default_ports:
        return "grpc"
    raise failure


def _choose_checked(
    dsn: str, address: Address, required: bool, difference: str
) -> Literal["grpc", "rest"]:
    """Choose when both answer."""
    if not difference:
        return "grpc"
    found = f"another server answers by gRPC at {address.grpc_target}: {difference}"
    if required:
        raise StoreError(
            f"{found} at {dsn}: set MSMARCO_QDRANT_GRPC_PORT, or pass Connection(grpc_port=...), "
            "to the gRPC port of the same server, or use transport rest"
        )
    _warn(dsn, f"{found} at the URL")
    return "rest"


def _warn(dsn: str, reason: str) -> None:
    _log.warning(
        "%s: %s, so REST is used: %s; transport rest (--transport rest, "
        "MSMARCO_QDRANT_TRANSPORT=rest) selects it without this warning",
        dsn,
        reason,
        COST,
    )


def _client(
    address: Address, connection: Connection, transport: Literal["grpc", "rest"]
) -> QdrantClient:
    brief = replace(connection, timeout_s=min(_PROBE_S, connection.timeout_s))
    client = QdrantClient(**client_arguments(replace(address, transport=transport), brief))
    if transport == "grpc":
        GRPC.note_use(client)
    return client


def _difference(one: _Identity, other: _Identity) -> str:
    """Return the first difference between REST's and gRPC's answers, or "" if there is none."""
    if one.title == other.title and one.names[0] and one.names == other.names:
        return ""
    if not is_same_build(one[:3], other[:3]):
        return f"{' '.join(other[:3])} there, {' '.join(one[:3])}"
    for mine, others in zip(one.names, other.names, strict=True):
        if mine is None or others is None:
            if mine != others:
                return "the API key has other rights there than"
        elif mine != others:
            name = min(mine ^ others)
            return f"{name!r} exists there, not" if name in others else f"{name!r} exists only"
    return ""


def is_same_build(one: Build, other: Build) -> bool:
    """Compare title, version and, if both servers report it, commit."""
    known = 3 if one[2] and other[2] else 2
    return one[:known] == other[:known]


def _identify(client: QdrantClient) -> _Identity:
    return _Identity(*_build(client), _names(client))


def _identify_other(
    keyless: QdrantClient, client: QdrantClient, has_key: bool, one: _Identity
) -> _Identity:
    """Identify the server at the gRPC port, with the key only if it is of the build of `one`."""
    build = _build(keyless)
    may_list = not has_key or is_same_build(one[:3], build)
    return _Identity(*build, _names(client) if may_list else (None, None))


def _build(client: QdrantClient) -> Build:
    info = client.info()
    if not info.title.startswith("qdrant"):
        raise _OtherServiceError(f"the service is not Qdrant but {info.title!r}")
    return info.title, info.version, info.commit or ""


def _names(client: QdrantClient) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """Return the names of collections and of aliases, None for those that the key may not list."""
    return (
        _listed(lambda: (one.name for one in client.get_collections().collections)),
        _listed(lambda: (one.alias_name for one in client.get_aliases().aliases)),
    )


def _listed(names: Callable[[], Iterable[str]]) -> frozenset[str] | None:
    try:
        return frozenset(names())
    except Exception as exc:
        if not is_access_error(exc):
            raise
        return None
