"""Mapping of the engines' exceptions to this package's errors.

The same mistake on each engine (Qdrant Edge 0.9, the local mode of qdrant-client 1.20, Qdrant
server 1.16 to 1.20 over gRPC):

=================== ================================ ============================ ================
mistake             Edge: `Exception`                local mode: `ValueError`     server: status
=================== ================================ ============================ ================
wrong dimension     Vector dimension error           Vector dimension error;      INVALID_ARGUMENT
                                                     shapes ... not aligned       Vector dimension
                                                     (a query)                    error
unknown vector      Not existing vector name         Not existing vector name;    INVALID_ARGUMENT
                                                     Dense vector ... is not      Not existing
                                                     found (a query)              vector name
no such point       No point with id                 Point ... is not found in    NOT_FOUND No
                                                     the collection (a query)     point with id
point without it    none: ours, `search_points`      Vector with name ... for      NOT_FOUND Vector
                                                     point ... not found (a       with name ... for
                                                     query)                       point
no such collection  none: ours, `EdgeDirectory`      Collection ... not found     NOT_FOUND
second creation     none: ours, `EdgeStore`          already exists               ALREADY_EXISTS,
                                                                                  INVALID_ARGUMENT
                                                                                  already exists
in use              WouldBlock                       cannot be                    cannot be
disk full, no right No space left, Permission denied cannot be                    see below
out of resources    as `strerror`                    cannot be                    see below
closed              handle is closed: ours           is closed (`RuntimeError`)   ours
=================== ================================ ============================ ================

A server that is busy or not reached (`_TRANSIENT`) is retried. A lost connection is UNAVAILABLE
("Socket closed"), or at some moments UNKNOWN ("Stream removed") or INTERNAL ("RST_STREAM"). A node
that reaches too few others of its cluster answers INTERNAL (`_CLUSTER`), as do a server that is
busy (`_OVERLOADED`) and errors that no retry ends (`_PERMANENT`). The texts are those of Qdrant's
lib/collection/src/operations/types.rs and lib/collection/src/shards/replica_set. An answer over
REST has the status that `rest_errors` gives it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    SchemaError,
    StoreAccessError,
    StoreError,
    StoreInUseError,
    StoreUnavailableError,
    UnsupportedError,
)
from msmarco_qdrant.stores.rest_errors import is_rest, rest_retry_after_s, rest_status_and_message

_TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED"})
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification", "security handshaker")
_NOT_TLS = ("WRONG_VERSION_NUMBER",)
_NO_HOST = (
    *("Domain name not found", "errors resolving", "DNS resolution failed"),
    *("Name or service not known", "nodename nor servname", "getaddrinfo failed"),
    *("name resolution", "No address associated with hostname"),
)
_REFUSED = ("Connection refused", "actively refused", "connection attempts failed")
_DISCONNECTED = ("Stream removed", "RST_STREAM", "Socket closed", "Connection reset", "GOAWAY")
_CLUSTER = (
    "shards failed to apply operation",
    "read operations failed",
    "does not have enough active replicas",
    "has no active replica",
    "at least one `Active` replica",
    "ordering via leader peer",
    "no leader could be selected",
    "all attempts were rejected",
    "Consistency of this update is not guaranteed",
    "Tonic status error",
    "Tonic transport error",
    "transport error",
    "tcp connect error",
    "Failed to connect to",
    "consensus operation commit failed",
    "leader is not established",
)
_OVERLOADED = (
    "Timeout error",
    "Deadline Exceeded",
    "Operation cancelled",
    "Can't reach one of the workers",
    "recondition failed",
    "Pre-condition failure",
)
_CLUSTER_STATUSES = frozenset({"UNKNOWN", "INTERNAL", "CANCELLED", "FAILED_PRECONDITION"})
# Parts of errors that a node passes on from another one.
_PERMANENT = (
    "Wrong input",
    "Bad request",
    "Bad shard selection",
    "No point with id",
    "Strict mode error",
    "No space left",
    "InvalidArgument",
    "PermissionDenied",
    "does not have permission",
    "Unauthenticated",
    "valid authentication credentials",
    "Unimplemented",
    "not implemented",
)

# Patterns of messages, of any engine, and their errors; the first match wins.
_MESSAGES: tuple[tuple[str, type[StoreError]], ...] = (
    (r"No point with id", StoreError),
    (r"Vector dimension error|shapes .* not aligned", SchemaError),
    (r"Not existing vector name|Dense vector .* is not found", SchemaError),
    (r"already exists", SchemaError),
    (r"^Collection .* not found$", CollectionNotFoundError),
    (r"WouldBlock", StoreInUseError),
    (r"No space left|Permission denied", StoreUnavailableError),
    (r"Disk quota exceeded|Read-only file system|Input/output error", StoreUnavailableError),
    (r"Too many open files|Cannot allocate memory", StoreUnavailableError),
    (r"Resource temporarily unavailable", StoreUnavailableError),
)
_NO_POINT = re.compile(
    r"No point with id|Point .* is not found in the collection|Vector with name .* for point"
)
_LINE_ENDS = re.compile(r"\s*[\r\n]+\s*")
# Qdrant's lib/collection/src/operations/verification/mod.rs
_NO_INDEX = re.compile(
    r'Index required but not found for "(.+?)" of one of the following types: \[(.*?)\]'
)
_NO_RANGE_INDEX = re.compile(r"No range index for `order_by`")
_NO_FACET_INDEX = re.compile(r"No appropriate index for faceting")
_STRICT_MODE = re.compile(
    r'Limit exceeded .+ for "|Exact search disabled|Condition size limit reached'
    r"|Filter condition limit reached|Index required but not found"
)
_ACCESS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_STATUSES: dict[str, type[StoreError]] = {
    "UNAUTHENTICATED": StoreAccessError,
    "PERMISSION_DENIED": StoreAccessError,
    "UNIMPLEMENTED": UnsupportedError,
    "NOT_FOUND": CollectionNotFoundError,
    "ALREADY_EXISTS": SchemaError,
}
_NEXT_STEPS: dict[type[StoreError], str] = {
    StoreAccessError: "set MSMARCO_QDRANT_API_KEY, or pass Connection(api_key=...), to a key with "
    "the permission for it",
    UnsupportedError: "check that the server is Qdrant 1.16 or later",
    StoreInUseError: "another process has this collection open",
}

_PORT = (
    "check that Qdrant is running and its gRPC port is open. That is 6334 for a URL with port 6333 "
    "or none, else the URL's port plus 1, unless MSMARCO_QDRANT_GRPC_PORT, "
    "Connection(grpc_port=...) or a grpc:// URL sets another"
)
_REST_PORT = (
    "check that Qdrant is running at the URL: an http:// or https:// URL must have the port of "
    "REST, which is 6333 if it has none; a grpc:// URL has the port of gRPC"
)
_CERTIFICATE = (
    "its certificate is not trusted: set MSMARCO_QDRANT_TLS_CA, or pass Connection(tls_ca=...), to "
    "the file of the certificate that signed it, and use the host name of the certificate"
)
_NODE_AWAY = (
    "a node of the Qdrant cluster is away, or its replicas are being copied: run the same command "
    "again when all nodes are up"
)
_BUSY = "the server is overloaded or unreachable: try again later"
_UNENCRYPTED = "the port is not encrypted: use grpc:// or http:// for Qdrant without TLS"
_LOST = "the connection was lost: try again later, or use grpcs:// or https:// if it expects TLS"
_UNKNOWN_HOST = "the host name is unknown: check the URL"
# Parts of the messages for a failed connection, and the next step; the first match wins.
_CAUSES: tuple[tuple[tuple[str, ...], str], ...] = (
    (_NOT_TLS, f"{_UNENCRYPTED}; {_PORT}"),
    (_UNTRUSTED, _CERTIFICATE),
    (_NO_HOST, _UNKNOWN_HOST),
    (_REFUSED, f"nothing listens on the port: {_PORT}"),
    (("failed to connect",), f"the port does not answer gRPC: {_PORT}"),
    (("Socket closed",), _LOST),
)
_REST_CAUSES: tuple[tuple[tuple[str, ...], str], ...] = (
    (_NOT_TLS, f"{_UNENCRYPTED}; {_REST_PORT}"),
    (_UNTRUSTED, _CERTIFICATE),
    (_NO_HOST, _UNKNOWN_HOST),
    (_REFUSED, f"nothing listens on the port: {_REST_PORT}"),
    (("illegal status line",), f"the port does not answer REST: {_REST_PORT}"),
    (("disconnected",), _LOST),
)


def is_transient(exc: BaseException) -> bool:
    """True if the same call may succeed later."""
    status, message = _status_and_message(exc)
    if _any_in((*_UNTRUSTED, *_NOT_TLS), message):
        return False
    if status in _TRANSIENT or _passes(status, message, (*_CLUSTER, *_OVERLOADED)):
        return True
    return status in ("UNKNOWN", "INTERNAL", "CANCELLED") and _any_in(_DISCONNECTED, message)


def is_forbidden(error: StoreError) -> bool:
    """True if the server accepts the API key, and the key lacks a right."""
    cause = error.__cause__
    return cause is not None and _status_and_message(cause)[0] == "PERMISSION_DENIED"


def is_access_error(exc: BaseException) -> bool:
    """True if the server does not allow the call with this API key."""
    return _status_and_message(exc)[0] in _ACCESS


def is_limit_error(error: StoreError) -> bool:
    """True if a server refused a request because of the collection's strict mode."""
    cause = error.__cause__
    return cause is not None and bool(_STRICT_MODE.search(_status_and_message(cause)[1]))


def missing_index(error: StoreError) -> tuple[str, Sequence[str]] | None:
    """Return the payload key without an index that a strict mode demands, and its possible kinds.

    Returns:
        None for an error of another cause.
    """
    cause = error.__cause__
    found = _NO_INDEX.search(_status_and_message(cause)[1]) if cause is not None else None
    return (found[1], found[2].split(", ")) if found else None


def lacks_facet_index(error: StoreError) -> bool:
    """True if an engine counts no values of a payload key, because no index has them."""
    cause = error.__cause__
    return cause is not None and bool(_NO_FACET_INDEX.search(_status_and_message(cause)[1]))


def lacks_range_index(error: StoreError) -> bool:
    """True if an engine orders no points by a payload key, because no index has its values."""
    cause = error.__cause__
    return cause is not None and bool(_NO_RANGE_INDEX.search(_status_and_message(cause)[1]))


def status_of(exc: BaseException) -> str:
    """Return the name of the gRPC status, or else of the exception's class."""
    return _status_and_message(exc)[0] or type(exc).__name__


def describe_error(exc: BaseException) -> str:
    """Describe an engine's exception in one line."""
    status, message = _status_and_message(exc)
    return f"{status}: {message}" if status else message


def retry_after_s(exc: BaseException | None) -> float:
    """Return the seconds in the server's retry-after, 0 without one."""
    return float(getattr(exc, "retry_after_s", 0)) or rest_retry_after_s(exc)


def map_error(exc: BaseException, action: str, place: str) -> StoreError:
    """Return this package's error for an engine's exception.

    Args:
        exc: The exception of the engine or its client.
        action: The failed action ("writing points").
        place: The store or collection, without secrets.
    """
    status, message = _status_and_message(exc)
    text = f"{action} in {place} failed: {message}"
    if is_transient(exc) or status in _TRANSIENT:
        away = _NODE_AWAY if _passes(status, message, _CLUSTER) else ""
        return StoreUnavailableError(f"{text}; {away or _unavailable_advice(exc, message)}")
    kind = _STATUSES.get(status, StoreError)
    if status not in _ACCESS:
        kind = next((error for form, error in _MESSAGES if re.search(form, message)), kind)
    if action == "searching" and _NO_POINT.search(message):  # a search by its vector
        kind = SchemaError
    step = _NEXT_STEPS.get(kind)
    return kind(f"{text}; {step}" if step else text)


def _status_and_message(exc: BaseException) -> tuple[str, str]:
    """Return the name of the gRPC status ("" for other engines) and the message, in one line.

    Exceptions are recognized by their methods, so that Edge needs no import of gRPC.
    """
    if hasattr(exc, "retry_after_s"):  # qdrant-client's ResourceExhaustedResponse
        return "RESOURCE_EXHAUSTED", str(exc)
    if is_rest(exc):
        return rest_status_and_message(exc)
    if hasattr(exc, "code") and hasattr(exc, "details"):  # an RpcError of grpc or grpc.aio
        message = _LINE_ENDS.sub(" ", exc.details() or "").strip()
        return exc.code().name, message or exc.code().name
    return "", str(exc) or type(exc).__name__


def _passes(status: str, message: str, words: tuple[str, ...]) -> bool:
    """True if a server or a node has failed with one of these words, and not for good."""
    return (
        status in _CLUSTER_STATUSES and _any_in(words, message) and not _any_in(_PERMANENT, message)
    )


def _unavailable_advice(exc: BaseException, message: str) -> str:
    """Return the likely cause and the next step."""
    if delay_s := retry_after_s(exc):
        return (
            f"its retry-after is {delay_s:.0f} s, longer than MSMARCO_QDRANT_RETRY_S "
            "(Connection(retry_s=...)): try again later, or increase that"
        )
    causes = _REST_CAUSES if is_rest(exc) else _CAUSES
    return next((step for words, step in causes if _any_in(words, message)), _BUSY)


def _any_in(words: tuple[str, ...], message: str) -> bool:
    return any(word in message for word in words)
