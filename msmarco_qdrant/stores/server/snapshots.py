"""Snapshots of a server's collections, fetched and sent by its REST interface.

A snapshot has the points of one node. A collection with shards on several nodes needs a portable
backup, as does a server whose REST interface is not reached. That of a `grpc://` URL is expected at
the port before; it must answer with the same collection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    UnsupportedError,
)
from msmarco_qdrant.runtime.atomic_file import atomic_write
from msmarco_qdrant.stores.connection import Connection
from msmarco_qdrant.stores.metadata import metadata_to_json
from msmarco_qdrant.stores.protocols import SnapshotFormat
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.admin import ServerAdminCollection
from msmarco_qdrant.stores.server.arguments import client_arguments
from msmarco_qdrant.stores.server.client import ServerClient
from msmarco_qdrant.stores.server.shard_keys import SHARD_KEY
from msmarco_qdrant.stores.server.transport import Build, is_same_build

_FILE = "collection.snapshot"
_INDEXES = "payload_indexes"
_CHUNK = 2**20
_PROBE_S = 2.0
"""Seconds for which a REST interface that does not answer is asked again."""

_COMPARISONS = 3
"""Another client may write between two reads."""

_WORK_S = 3600.0
"""Seconds for the server to make a snapshot or to recover from it."""


class ServerSnapshots:
    """Snapshots of a server's collections; see `Snapshots`.

    Args:
        server: The server.
        connection: The connection's settings.
        open_collection: Opens a physical collection.
    """

    format: SnapshotFormat = "server"

    def __init__(
        self,
        server: ServerClient,
        connection: Connection,
        open_collection: Callable[[str], ServerAdminCollection],
    ) -> None:
        self._server = server
        self._connection = connection
        self._open = open_collection

    def settings(self, physical: str) -> Mapping[str, Any]:
        """Return the configuration of a collection as the server reports it, and its indexes."""
        info = self._open(physical).read_info()
        values: dict[str, Any] = info.config.model_dump(mode="json", exclude_none=True)
        values.pop("metadata", None)
        spec = convert.to_spec(info)
        found = {**values, _INDEXES: dict(spec.payload_indexes)}
        field = spec.sharding and spec.sharding.shard_key
        return {**found, SHARD_KEY: field} if field else found

    def create(
        self, physical: str, settings: Mapping[str, Any], metadata: CollectionMetadata
    ) -> None:
        """Create an empty collection with the configuration and payload indexes of another.

        A snapshot must be recovered into a collection that has the indexes: those in its segments
        are not in the collection's schema, so that new segments would lack them.
        """
        create = self._server.client.create_collection
        arguments = _create_arguments(models.CollectionConfig.model_validate(settings))
        stored = {convert.METADATA_KEY: metadata_to_json(metadata)}
        if SHARD_KEY in settings:
            stored[SHARD_KEY] = settings[SHARD_KEY]
        self._server.call("creating the collection", create, physical, metadata=stored, **arguments)
        for field, kind in settings[_INDEXES].items():
            self._open(physical).create_payload_index(field, kind)

    def save(self, physical: str, folder: Path) -> int | None:
        """Let the server make a snapshot, download it, and delete it on the server."""
        collection = self._open(physical)
        if collection.limits().shard_key is not None:
            raise UnsupportedError(
                f"{physical} in {self._server.place} has a shard key, and a snapshot is not "
                "recovered into shards that do not exist yet"
            )
        with self._rest(physical) as rest:
            before = collection.info()
            made = self._call(rest.create, 0.0)  # a repeated one makes two
            try:
                self._call(lambda: rest.download(made, folder / _FILE))
            finally:
                with suppress(StoreError):  # it only takes disk space
                    self._call(lambda: rest.delete(made))
        after = collection.info()
        is_same = (before.points, before.last_seq) == (after.points, after.last_seq)
        return before.points if is_same else None

    def load(
        self,
        physical: str,
        settings: Mapping[str, Any],
        metadata: CollectionMetadata,
        folder: Path,
    ) -> None:
        """Create the collection, and let the server recover its points from the snapshot."""
        self.create(physical, settings, metadata)
        with self._rest(physical) as rest:
            self._call(lambda: rest.upload(folder / _FILE))

    @contextmanager
    def _rest(self, physical: str) -> Iterator[_RestCollection]:
        """Open the REST interface, if a snapshot has every point of the collection.

        Raises:
            UnsupportedError: If it has not, or REST is not reached.
        """
        with self._open_client() as client:
            rest = _RestCollection(client, physical)
            try:
                is_same = self._admit(client) and self._is_same(rest, physical)
                is_spread = is_same and self._call(rest.is_spread, _PROBE_S)
            except (StoreUnavailableError, StoreAccessError, CollectionNotFoundError) as exc:
                raise UnsupportedError(
                    f"a snapshot needs the REST interface of {self._server.place} at "
                    f"{client.base_url}: {exc}"
                ) from exc
            if not is_same:
                raise UnsupportedError(
                    f"a snapshot needs the REST interface of {self._server.place}, got another "
                    f"server at {client.base_url}"
                )
            if is_spread:
                raise UnsupportedError(
                    f"{physical} in {self._server.place} has shards on several nodes, and a "
                    "snapshot has those of one"
                )
            yield rest

    def _is_same(self, rest: _RestCollection, physical: str) -> bool:
        """True if REST answers with this collection: equal metadata and newest write."""
        collection = self._open(physical)
        for _ in range(_COMPARISONS):
            metadata = collection.read_info().config.metadata or {}
            if self._call(rest.metadata, _PROBE_S) != metadata:
                return False
            if self._call(rest.last_seq, _PROBE_S) == collection.info().last_seq:
                return True
        return False

    def _open_client(self) -> httpx.Client:
        """Return a client without the API key; see `_admit`."""
        address = self._server.address
        if address is None:
            raise UnsupportedError(f"{self._server.place} has no snapshots")
        if address.rest_port is None and address.grpc_port is not None:
            address = replace(address, rest_port=address.grpc_port - 1)
        arguments = client_arguments(replace(address, transport="rest"), self._connection)
        return httpx.Client(
            base_url=arguments["url"],
            verify=arguments.get("verify", True),
            timeout=arguments["timeout"],
        )

    def _admit(self, client: httpx.Client) -> bool:
        """Let the client send the API key, unless another server has a port that no URL names."""
        address = self._server.address
        if address is not None and address.rest_port is None:
            info = self._server.call("reading the version", self._server.client.info)
            build = info.title, info.version, info.commit or ""
            if not is_same_build(build, self._call(lambda: _read_build(client), _PROBE_S)):
                return False
        if self._connection.api_key:
            client.headers["api-key"] = self._connection.api_key
        return True

    def _call(self, function: Callable[[], Any], retry_s: float | None = None) -> Any:
        """Call with retries; see `ServerClient.call_within`."""
        return self._server.call_within(retry_s, "copying a snapshot", function)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A snapshot on the server; `checksum` is its SHA-256 if the server reports it."""

    name: str
    size: int
    checksum: str | None


class _RestCollection:
    """One collection over REST: what qdrant-client cannot do with files of any size."""

    def __init__(self, client: httpx.Client, physical: str) -> None:
        self._client = client
        self._url = f"/collections/{physical}"

    def metadata(self) -> Mapping[str, Any]:
        """Return the collection's metadata."""
        found: Mapping[str, Any] = self._result("GET", "")["config"].get("metadata") or {}
        return found

    def last_seq(self) -> int:
        """Return the `seq` of the newest write, 0 without points."""
        if "seq" not in self._result("GET", "")["payload_schema"]:
            return 0  # a new collection
        newest = {"key": "seq", "direction": "desc"}
        request = {"limit": 1, "order_by": newest, "with_payload": ["seq"]}
        found = self._result("POST", "/points/scroll", json=request)["points"]
        return int(found[0]["payload"]["seq"]) if found else 0

    def is_spread(self) -> bool:
        """True if a shard is on another node."""
        return bool(self._result("GET", "/cluster")["remote_shards"])

    def create(self) -> _Snapshot:
        """Make a snapshot; return when it is complete."""
        found = self._result("POST", "/snapshots", params={"wait": "true"}, timeout=_WORK_S)
        return _Snapshot(found["name"], found["size"], found.get("checksum"))

    def delete(self, snapshot: _Snapshot) -> None:
        """Delete a snapshot."""
        self._result("DELETE", f"/snapshots/{snapshot.name}")

    def download(self, snapshot: _Snapshot, path: Path) -> None:
        """Write a snapshot to a file, durably, and check it."""
        digest = hashlib.sha256()
        with (
            _map_transport(),
            self._client.stream("GET", f"{self._url}/snapshots/{snapshot.name}") as response,
        ):
            _check(response)
            with atomic_write(path) as file:
                for chunk in response.iter_bytes(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
        if snapshot.checksum not in (None, digest.hexdigest()):
            raise StoreUnavailableError(
                f"the snapshot {snapshot.name} was changed on its way: its SHA-256 must be "
                f"{snapshot.checksum}, got {digest.hexdigest()}; try again"
            )

    def upload(self, path: Path) -> None:
        """Recover the collection from a file; return when the server has done it."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._upload(file, digest)

    def _upload(self, file: BinaryIO, digest: str) -> None:
        file.seek(0)
        self._result(
            "POST",
            "/snapshots/upload",
            params={"priority": "snapshot", "wait": "true", "checksum": digest},
            files={"snapshot": (_FILE, file)},
            timeout=_WORK_S,
        )

    def _result(self, method: str, path: str, **options: Any) -> Any:
        with _map_transport():
            response = self._client.request(method, f"{self._url}{path}", **options)
        _check(response)
        return response.json()["result"]


def _read_build(client: httpx.Client) -> Build:
    """Return title, version and commit, all empty if another service answers."""
    with _map_transport():
        response = client.get("/")
    try:
        info = models.VersionInfo.model_validate_json(response.content)
    except ValueError:
        return "", "", ""
    return info.title, info.version, info.commit or ""


@contextmanager
def _map_transport() -> Iterator[None]:
    """Raise qdrant-client's exception for a failed request, which the store maps."""
    try:
        yield
    except httpx.TransportError as exc:
        raise ResponseHandlingException(exc) from exc


def _check(response: httpx.Response) -> None:
    if not response.is_success:
        response.read()
        raise UnexpectedResponse.for_response(response)


def _create_arguments(config: models.CollectionConfig) -> dict[str, Any]:
    """Return the arguments of `create_collection` for a configuration."""

    def diff(kind: Callable[..., Any], found: Any) -> Any:
        return None if found is None else kind(**found.model_dump(exclude_none=True))

    params = config.params
    return {
        "vectors_config": params.vectors,
        "sparse_vectors_config": params.sparse_vectors,
        "shard_number": params.shard_number,
        "sharding_method": params.sharding_method,
        "replication_factor": params.replication_factor,
        "write_consistency_factor": params.write_consistency_factor,
        "on_disk_payload": params.on_disk_payload,
        "hnsw_config": diff(models.HnswConfigDiff, config.hnsw_config),
        "optimizers_config": diff(models.OptimizersConfigDiff, config.optimizer_config),
        "wal_config": diff(models.WalConfigDiff, config.wal_config),
        "quantization_config": config.quantization_config,
        "strict_mode_config": diff(models.StrictModeConfig, config.strict_mode_config),
    }
