"""The table of mistakes: the status a real Qdrant server answers with, its message, its source.

The server of this package refuses with rows of this table only. A message is the real server's own
text with `{fields}`; `source` names the files of qdrant/qdrant that it was read in. They were read
as public copies of its development branch of 2025 and 2026, about 1.16 to 1.20; the text is that
of the latest copy. How an error becomes a status is `From<StorageError> for tonic::Status` in
lib/storage/src/content_manager/conversions.rs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

import grpc  # type: ignore[import-untyped]

_ERRORS = "lib/storage/src/content_manager/errors.rs"
_COLLECTION_ERROR = f"lib/collection/src/operations/types.rs (CollectionError), {_ERRORS}"
_OPERATION_ERROR = f"lib/segment/src/common/operation_error.rs, {_COLLECTION_ERROR}"
_AUTH = "src/tonic/auth.rs, src/common/auth/mod.rs"
_RBAC = "lib/storage/src/rbac/mod.rs (GlobalAccessMode::meets_requirements)"
_CHECKER = f"lib/storage/src/content_manager/collections_ops.rs (Checker), {_ERRORS}"
_UPDATE = "src/tonic/api/update_common.rs"
_VALIDATION = "lib/api/src/grpc/validate.rs, lib/collection/src/operations/validation.rs"

Trailing = tuple[tuple[str, str], ...]


class RefusalError(Exception):
    """A call ends in a status other than OK; `trailing` is its trailing metadata."""

    def __init__(self, code: grpc.StatusCode, message: str, trailing: Trailing = ()) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.trailing = trailing


@dataclass(frozen=True, slots=True)
class Row:
    """One mistake: gRPC status, message with `{fields}`, where the real server says so."""

    code: grpc.StatusCode
    template: str
    source: str


class Mistake(Enum):
    """Every mistake that is refused, with its row."""

    # who asks
    NO_KEY = Row(
        grpc.StatusCode.UNAUTHENTICATED,
        "Must provide an API key or an Authorization bearer token",
        _AUTH,
    )
    WRONG_KEY = Row(grpc.StatusCode.UNAUTHENTICATED, "Invalid API key or JWT", _AUTH)
    READ_ONLY_KEY = Row(
        grpc.StatusCode.PERMISSION_DENIED, "Forbidden: Global manage access is required", _RBAC
    )
    NOT_GLOBAL = Row(
        grpc.StatusCode.PERMISSION_DENIED, "Forbidden: Global access is required", _RBAC
    )
    NO_ACCESS = Row(
        grpc.StatusCode.PERMISSION_DENIED,
        "Forbidden: Access to collection {name} is required",
        "lib/storage/src/rbac/mod.rs (CollectionAccessList::find_view)",
    )
    NO_WRITE_ACCESS = Row(
        grpc.StatusCode.PERMISSION_DENIED,
        "Forbidden: Write access to collection {name} is required",
        "lib/storage/src/rbac/mod.rs (CollectionAccessView::meets_requirements)",
    )
    # collections and aliases
    NO_COLLECTION = Row(
        grpc.StatusCode.NOT_FOUND, "Not found: Collection `{name}` doesn't exist!", _CHECKER
    )
    COLLECTION_EXISTS = Row(
        grpc.StatusCode.ALREADY_EXISTS,
        "Wrong input: Collection `{name}` already exists!",
        _CHECKER,
    )
    NAME_IS_ALIAS = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: Can't create collection with name {name}. "
        "Alias with the same name already exists",
        f"lib/storage/src/content_manager/toc/create_collection.rs, {_ERRORS}",
    )
    NO_SNAPSHOT = Row(
        grpc.StatusCode.NOT_FOUND,
        "Not found: Snapshot {name} not found",
        "lib/storage/src/content_manager/snapshots",
    )
    SNAPSHOT_CHECKSUM = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: Snapshot checksum mismatch: expected {expected}, got {found}",
        "lib/storage/src/content_manager/snapshots/recover.rs",
    )
    SNAPSHOT_CONFIG = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: Snapshot is not compatible with existing collection: {field} differs",
        "lib/storage/src/content_manager/snapshots/recover.rs, whose words name both values",
    )
    MALFORMED_ALIAS = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Malformed AliasOperation type",
        "lib/storage/src/content_manager/conversions.rs",
    )
    # a request's form, checked before anything is looked up
    INVALID_FIELD = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Validation error in body: [{field}: {problem}]",
        f"{_VALIDATION}; the path of a nested field is approximate here",
    )
    BAD_JSON = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Format error in JSON body: {problem}",
        "src/actix/mod.rs (validation_error_handler); REST only, `problem` is in other words here",
    )
    TOO_LARGE = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Payload error: JSON payload ({size} bytes) is larger than allowed (limit: {limit} bytes).",
        "actix-web's JsonPayloadError, by src/actix/mod.rs; REST only, status 400",
    )
    NO_SELECTOR = Row(grpc.StatusCode.INVALID_ARGUMENT, "PointSelector is missing", _UPDATE)
    NO_PAYLOAD_SELECTOR = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Bad request: No filter or points provided",
        f"src/common/update.rs, {_ERRORS}",
    )
    NO_OPERATION = Row(grpc.StatusCode.INVALID_ARGUMENT, "Operation is missing", _UPDATE)
    NO_FIELD_TYPE = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Bad request: Can't auto-detect field type, please specify `field_schema` in the request",
        f"src/common/update.rs (do_create_index), {_ERRORS}",
    )
    EMPTY_UPDATE = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Bad request: Empty update request",
        f"lib/collection/src/collection/point_ops.rs (update_from_client), {_ERRORS}",
    )
    # vectors and points
    WRONG_DIMENSION = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: Vector dimension error: expected dim: {expected}, got {got}",
        f"{_OPERATION_ERROR}; src/common/validate_vectors.rs for the unnamed vector of an upsert",
    )
    WRONG_DIMENSION_OF = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: Vector dimension error: expected dim: {expected}, got {got} "
        "for vector '{name}'",
        "src/common/validate_vectors.rs: upserts of named vectors, before the WAL, so without "
        "`wait` too; servers before the fix of issue 9039 (1.18) are as in the row above",
    )
    NO_VECTOR_NAME = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: Not existing vector name error: {name}",
        f"{_OPERATION_ERROR}; found when the write is applied, so only `wait=true` hears of it",
    )
    WRONG_VECTOR_KIND = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: Conversion between sparse and regular vectors failed",
        _COLLECTION_ERROR,
    )
    NO_POINT = Row(
        grpc.StatusCode.NOT_FOUND, "Not found: No point with id {id} found", _COLLECTION_ERROR
    )
    NO_RANGE_INDEX = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: No range index for `order_by` key: `{key}`. Please create one to use "
        "`order_by`. Check https://qdrant.tech/documentation/concepts/indexing/#payload-index to "
        "see which payload schemas support Range conditions",
        _OPERATION_ERROR,
    )
    NO_FACET_INDEX = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: No appropriate index for faceting: `{key}`. Please create one to facet on "
        "this field. Check https://qdrant.tech/documentation/concepts/indexing/#payload-index to "
        "see which payload schemas support Match conditions",
        _OPERATION_ERROR,
    )
    STRICT_MODE = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Bad request: {problem}. Help: {help}",
        "lib/collection/src/operations/verification/mod.rs, CollectionError::strict_mode",
    )
    BAD_REQUEST = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Bad request: {description}",
        f"{_COLLECTION_ERROR}: bad_request",
    )
    BAD_INPUT = Row(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Wrong input: {description}",
        f"{_ERRORS}; for whatever else local mode refuses, such as NaN, which a real server "
        "stores (issue 9201)",
    )
    # what a server in trouble says; only faults ask for these
    RATE_LIMITED = Row(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Rate limiting exceeded: {description}",
        f"{_COLLECTION_ERROR} (rate_limit_error); whole seconds, rounded up, in the trailing "
        "metadata `retry-after`, which is absent when waiting would not help",
    )
    SHARD_UNAVAILABLE = Row(
        grpc.StatusCode.UNAVAILABLE, "Shard temporarily unavailable: {description}", _ERRORS
    )
    TIMED_OUT = Row(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "Timeout: Timeout error: Operation '{operation}' timed out after {seconds}s",
        _COLLECTION_ERROR,
    )
    INTERNAL = Row(grpc.StatusCode.INTERNAL, "Service internal error: {description}", _ERRORS)
    # what a node of a cluster says when another is away
    PEER_AWAY = Row(
        grpc.StatusCode.INTERNAL,
        "Service internal error: Tonic status error: code: 'The service is currently unavailable', "
        'message: "tcp connect error"',
        f"{_COLLECTION_ERROR}: From<tonic::Status>",
    )
    SHARDS_FAILED = Row(
        grpc.StatusCode.INTERNAL,
        "Service internal error: {failed} out of {total} shards failed to apply operation. "
        "First error captured: {first}",
        f"{_COLLECTION_ERROR}: InconsistentShardFailure",
    )
    READS_FAILED = Row(
        grpc.StatusCode.INTERNAL,
        "Service internal error: {failed} of {asked} read operations failed:\n  {first}",
        "lib/collection/src/shards/replica_set/execute_read_operation.rs",
    )
    FEW_REPLICAS = Row(
        grpc.StatusCode.INTERNAL,
        "Service internal error: The replica set for shard {shard} on peer {peer} does not have "
        "enough active replicas",
        "lib/collection/src/shards/replica_set/execute_read_operation.rs",
    )
    NO_REPLICA = Row(
        grpc.StatusCode.INTERNAL,
        "Service internal error: The replica set for shard {shard} on peer {peer} has no active "
        "replica",
        "lib/collection/src/shards/replica_set/update.rs",
    )
    LEADER_AWAY = Row(
        grpc.StatusCode.INTERNAL,
        "Service internal error: Failed to apply update with Strong ordering via leader peer "
        "{peer}: {first}",
        "lib/collection/src/shards/replica_set/update.rs",
    )
    NO_CONSENSUS = Row(
        grpc.StatusCode.INTERNAL,
        "Service internal error: Waiting for consensus operation commit failed. Timeout set at: 10 "
        "seconds",
        "lib/storage/src/content_manager/consensus_manager.rs",
    )
    # the loopback server's own
    ASKED_FOR = Row(
        grpc.StatusCode.UNKNOWN,
        "the loopback server was told to answer {code}",
        "none: a fault of a code that the real server itself never answers",
    )
    ANSWER_LOST = Row(
        grpc.StatusCode.UNAVAILABLE,
        "the answer was lost",
        "none: the connection was cut after the write",
    )
    CUT = Row(
        grpc.StatusCode.UNAVAILABLE,
        "the connection was cut",
        "none: the connection was cut inside the request",
    )
    CANCELLED = Row(
        grpc.StatusCode.CANCELLED, "the call was cancelled", "none: the client had gone"
    )
    NODE_AWAY = Row(
        grpc.StatusCode.UNAVAILABLE,
        "failed to connect to all addresses; last error: UNKNOWN: Failed to connect to remote "
        "host: Connection refused",
        "gRPC's own, of a node that is away",
    )
    STOPPED = Row(
        grpc.StatusCode.UNAVAILABLE,
        "the loopback server is stopping",
        "none: a real server's connection just ends",
    )
    NOT_SERVED = Row(
        grpc.StatusCode.UNIMPLEMENTED,
        "the loopback server does not serve {rpc}",
        "none: the real server serves it",
    )

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status."""
        return self.row.code

    @property
    def row(self) -> Row:
        """The row of the table."""
        row: Row = self.value
        return row

    def message(self, **fields: object) -> str:
        """The message with its fields filled in."""
        return self.row.template.format(**fields)

    def refusal(self, **fields: object) -> RefusalError:
        """The error to raise."""
        return RefusalError(self.code, self.message(**fields))


_IN_TROUBLE: Mapping[grpc.StatusCode, str] = MappingProxyType(
    {
        grpc.StatusCode.UNAUTHENTICATED: Mistake.WRONG_KEY.message(),
        grpc.StatusCode.PERMISSION_DENIED: Mistake.READ_ONLY_KEY.message(),
        grpc.StatusCode.UNAVAILABLE: Mistake.SHARD_UNAVAILABLE.message(
            description="The replica set for shard 0 on peer 1 has no active replica"
        ),
        grpc.StatusCode.DEADLINE_EXCEEDED: Mistake.TIMED_OUT.message(
            operation="Update", seconds=60
        ),
        grpc.StatusCode.INTERNAL: Mistake.INTERNAL.message(
            description="No space left on device: WAL buffer size exceeds available disk space"
        ),
    }
)


def refusal_in_trouble(
    code: grpc.StatusCode, message: str | None = None, retry_after_s: int | None = None
) -> RefusalError:
    """What a server in trouble answers: its own message for the code unless one is given."""
    trailing: Trailing = ()
    if retry_after_s is not None:
        trailing = (("retry-after", str(retry_after_s)),)
    if message is None and code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        message = _rate_limited(retry_after_s)
    if message is None:
        message = _IN_TROUBLE.get(code) or Mistake.ASKED_FOR.message(code=code.name)
    return RefusalError(code, message, trailing)


def _rate_limited(retry_after_s: int | None) -> str:
    """The rate limiter's message: with the time to wait, or that waiting will not help."""
    description = "Write rate limit exceeded, operation is larger than the limit"
    if retry_after_s is not None:
        description = (
            "Write rate limit exceeded: Operation requires 100 tokens but only 1.0 were "
            f"available. Retry after {retry_after_s}s"
        )
    return Mistake.RATE_LIMITED.message(description=description)
