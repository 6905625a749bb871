"""What the engines say when something is wrong, and which of our errors that is.

The same mistake in the words of each engine (Qdrant Edge 0.9, the local mode of qdrant-client
1.20, Qdrant server 1.16 to 1.20 over gRPC):

=================== ================================ ============================ ================
mistake             Edge: `Exception`                local mode: `ValueError`     server: status
=================== ================================ ============================ ================
wrong dimension     Vector dimension error           Vector dimension error;      INVALID_ARGUMENT
                                                     shapes ... not aligned       Vector dimension
                                                     (a query)                    error
unknown vector      Not existing vector name         Not existing vector name;    INVALID_ARGUMENT
                                                     Dense vector ... is not      Not existing
                                                     found (a query)              vector name
no such collection  none: ours, `EdgeDirectory`      Collection ... not found     NOT_FOUND
second creation     none: ours, `EdgeStore`          already exists               ALREADY_EXISTS,
                                                                                  INVALID_ARGUMENT
                                                                                  already exists
in use              WouldBlock                       cannot be                    cannot be
no room, no right   No space left, Permission denied cannot be                    see below
out of something    in the words of `strerror`       cannot be                    see below
closed              handle is closed: ours           is closed (`RuntimeError`)   ours
API key             cannot be                        cannot be                    UNAUTHENTICATED,
                                                                                  PERMISSION_DENIED
too old             cannot be                        cannot be                    UNIMPLEMENTED
busy                cannot be                        cannot be                    RESOURCE_EXHAUSTED
not reached         cannot be                        cannot be                    UNAVAILABLE,
                                                                                  DEADLINE_EXCEEDED,
                                                                                  ABORTED
=================== ================================ ============================ ================

The last two rows pass by themselves, so they alone are tried again (`is_transient`). A connection
that is cut is UNAVAILABLE ("Socket closed"), but for some moments in which gRPC calls it UNKNOWN
("Stream removed") or INTERNAL ("RST_STREAM").
"""

from __future__ import annotations

import re

from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    SchemaError,
    StoreAccessError,
    StoreError,
    StoreInUseError,
    StoreUnavailableError,
    UnsupportedError,
)

_PASSING = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED"})
_DISTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification", "security handshaker")
_NOT_TLS = ("WRONG_VERSION_NUMBER",)
_NO_HOST = ("Domain name not found", "errors resolving", "DNS resolution failed")
_CUT = ("Stream removed", "RST_STREAM", "Socket closed", "Connection reset", "GOAWAY")

# What a message looks like, of whichever engine, and the error it stands for; the first that
# fits wins.
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
# What a status of the server stands for, whatever its message.
_ACCESS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_STATUSES: dict[str, type[StoreError]] = {
    "UNAUTHENTICATED": StoreAccessError,
    "PERMISSION_DENIED": StoreAccessError,
    "UNIMPLEMENTED": UnsupportedError,
    "NOT_FOUND": CollectionNotFoundError,
    "ALREADY_EXISTS": SchemaError,
}
_NEXT_STEPS: dict[type[StoreError], str] = {
    StoreAccessError: "set MSMARCO_QDRANT_API_KEY, or pass Connection(api_key=...), to a key that "
    "may do this",
    UnsupportedError: "is a Qdrant server of version 1.16 or later there?",
    StoreInUseError: "another process has this collection open",
}

_PORT = (
    "is Qdrant running, with its gRPC port open? It is 6334 unless MSMARCO_QDRANT_GRPC_PORT, "
    "Connection(grpc_port=...) or a grpc:// URL says otherwise; the port 6333 speaks HTTP only"
)
_CERTIFICATE = (
    "its certificate is not trusted: set MSMARCO_QDRANT_TLS_CA, or pass Connection(tls_ca=...), to "
    "the file of the certificate that signed it, and spell the host as the certificate does"
)
_BUSY = "the server is overloaded or cannot be reached: try again later"
# Words of what gRPC says when it reached nobody, and the next step; the first that fits counts.
_CAUSES: tuple[tuple[tuple[str, ...], str], ...] = (
    (_NOT_TLS, f"the port is not encrypted: use grpc:// or http://, if it is Qdrant's; {_PORT}"),
    (_DISTRUSTED, _CERTIFICATE),
    (_NO_HOST, "no host of that name is known: check how the URL is spelt"),
    (("Connection refused",), f"nothing listens there: {_PORT}"),
    (("failed to connect",), f"no Qdrant speaks gRPC there: {_PORT}"),
    (
        ("Socket closed",),
        "it was cut off: try again later, or, if it expects TLS, use grpcs:// or https://",
    ),
)


def is_transient(exc: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    status, message = _told(exc)
    if _any_in((*_DISTRUSTED, *_NOT_TLS), message):
        return False
    return status in _PASSING or (
        status in ("UNKNOWN", "INTERNAL", "CANCELLED") and _any_in(_CUT, message)
    )


def describe_error(exc: BaseException) -> str:
    """An engine's exception in one line."""
    status, message = _told(exc)
    return f"{status}: {message}" if status else message


def retry_after_s(exc: BaseException | None) -> float:
    """The seconds that the server asked to be left alone for, 0 if it did not."""
    return float(getattr(exc, "retry_after_s", 0))


def map_error(exc: BaseException, action: str, place: str) -> StoreError:
    """Our error for one of an engine.

    Args:
        exc: What the engine or its client raised.
        action: What was being done ("writing points").
        place: Where, without secrets.
    """
    status, message = _told(exc)
    text = f"{action} in {place} failed: {message}"
    if is_transient(exc) or status in _PASSING:
        return StoreUnavailableError(f"{text}; {_why_not_reached(exc, message)}")
    told = None if status in _ACCESS else _kind_by_message(message)
    kind = told or _STATUSES.get(status, StoreError)
    step = _NEXT_STEPS.get(kind)
    return kind(f"{text}; {step}" if step else text)


def _told(exc: BaseException) -> tuple[str, str]:
    """The name of the gRPC status ("" for other engines), and the message.

    Told by their methods, not their classes, so that Edge needs no import of gRPC for it.
    """
    if hasattr(exc, "retry_after_s"):  # qdrant-client's ResourceExhaustedResponse
        return "RESOURCE_EXHAUSTED", str(exc)
    if hasattr(exc, "code") and hasattr(exc, "details"):  # an RpcError of grpc or grpc.aio
        return exc.code().name, exc.details() or exc.code().name
    return "", str(exc) or type(exc).__name__


def _kind_by_message(message: str) -> type[StoreError] | None:
    return next((kind for form, kind in _MESSAGES if re.search(form, message)), None)


def _why_not_reached(exc: BaseException, message: str) -> str:
    """The likely cause, and the next step."""
    if asked := retry_after_s(exc):
        return (
            f"it asked to be left alone for {asked:.0f} s, longer than MSMARCO_QDRANT_RETRY_S "
            "(Connection(retry_s=...)) allows: try again later, or allow more"
        )
    return next((step for words, step in _CAUSES if _any_in(words, message)), _BUSY)


def _any_in(words: tuple[str, ...], message: str) -> bool:
    return any(word in message for word in words)
