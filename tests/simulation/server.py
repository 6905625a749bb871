"""A simulated Qdrant server of several shards, behind a network that loses and repeats requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msmarco_qdrant.core.collection_types import PointId, SettingsChange
from msmarco_qdrant.core.metadata_types import BulkHolder
from msmarco_qdrant.errors import StoreUnavailableError
from msmarco_qdrant.stores.base import Capabilities
from tests.simulation.loop import Done, Killed, Loop, Operation

TIMEOUT_S = 5.0
OWN_THRESHOLD = 10_000
Payloads = dict[PointId, dict[str, Any]]


@dataclass
class Faults:
    """Probabilities of the faults of one schedule.

    Attributes:
        lost: A request, or its answer, is lost.
        repeated: A request arrives a second time, later.
        late: A request takes longer than its timeout.
        killed: The driver is killed in a call that changes a setting.
    """

    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0
    killed: float = 0.0


@dataclass
class Shard:
    """A shard's points; each write that it applied survives a crash."""

    is_up: bool = True
    points: Payloads = field(default_factory=dict)


class Server:
    """Shards and the settings of one collection."""

    def __init__(self, loop: Loop, shards: int, faults: Faults) -> None:
        self._loop = loop
        self._faults = faults
        self.shards = [Shard() for _ in range(shards)]
        self.threshold = OWN_THRESHOLD
        self.holders: dict[str, BulkHolder] = {}

    @property
    def points(self) -> Payloads:
        """The points of all shards."""
        return {id_: payload for shard in self.shards for id_, payload in shard.points.items()}

    def shard(self, id_: PointId) -> Shard:
        """The shard of a point."""
        return self.shards[int(id_) % len(self.shards)]

    def crash(self, number: int, seconds: float) -> None:
        """Let a shard not answer for a while."""
        shard = self.shards[number]
        shard.is_up = False

        def restart() -> None:
            shard.is_up = True

        self._loop.after(seconds, restart)

    def upsert(self, points: Payloads) -> Operation:
        """Write points; those of a shard that is down are refused, the others stay."""

        def apply() -> None:
            refused = False
            for id_, payload in points.items():
                shard = self.shard(id_)
                if shard.is_up:
                    shard.points[id_] = payload
                else:
                    refused = True
            if refused:
                raise StoreUnavailableError("a shard failed to apply the operation")

        return lambda done: self._send(apply, done)

    def retrieve(self, ids: Sequence[PointId]) -> Operation:
        """Read payloads."""

        def apply() -> Payloads:
            if any(not self.shard(id_).is_up for id_ in ids):
                raise StoreUnavailableError("a shard does not answer")
            return {
                id_: self.shard(id_).points[id_] for id_ in ids if id_ in self.shard(id_).points
            }

        return lambda done: self._send(apply, done)

    def _send(self, apply: Any, done: Done) -> None:
        """Deliver a request never, once or twice, and its answer perhaps."""
        loop, faults = self._loop, self._faults
        timed_out = StoreUnavailableError("no answer in time")
        loop.after(TIMEOUT_S, lambda: done(None, timed_out))
        if loop.chance(faults.lost):
            return
        delay = loop.random.uniform(0.001, 0.02)
        if loop.chance(faults.late):
            delay += loop.random.uniform(0, 4 * TIMEOUT_S)
        loop.after(delay, lambda: self._deliver(apply, done))
        if loop.chance(faults.repeated):
            loop.after(delay + loop.random.uniform(0, 30), lambda: self._deliver(apply, None))

    def _deliver(self, apply: Any, done: Done | None) -> None:
        value, error = None, None
        try:
            value = apply()
        except StoreUnavailableError as exc:
            error = exc
        if done is not None and not self._loop.chance(self._faults.lost):
            delay = self._loop.random.uniform(0.001, 0.02)
            self._loop.after(delay, lambda: done(value, error))


class SimulatedStore:
    """The calls of a store that bulk mode makes; any of them may be the driver's last.

    Args:
        loop: The loop.
        server: The server.
        faults: Its faults.
        on_restore: Called when a threshold is restored.
    """

    dsn = "simulated"
    capabilities = Capabilities("Server", ann=True, multi_process=True)

    def __init__(
        self, loop: Loop, server: Server, faults: Faults, on_restore: Callable[[], None]
    ) -> None:
        self._loop, self._server, self._faults = loop, server, faults
        self._on_restore = on_restore

    def _fault(self) -> None:
        if self._loop.chance(self._faults.killed):
            raise Killed

    def admin_collection(self, name: str) -> SimulatedStore:  # noqa: ARG002  # there is one
        """Return the settings of the only collection."""
        return self

    def optimizers(self) -> SettingsChange:
        """Return the threshold."""
        return SettingsChange(indexing_threshold_kb=self._server.threshold)

    def alter(self, change: SettingsChange) -> None:
        """Change the threshold; the driver may be killed before or after."""
        self._fault()
        assert change.indexing_threshold_kb is not None
        if change.indexing_threshold_kb > self._server.threshold:
            self._on_restore()
        self._server.threshold = change.indexing_threshold_kb
        self._fault()

    def bulk_holders(self, name: str) -> dict[str, BulkHolder]:  # noqa: ARG002  # there is one
        """Return the records."""
        return {**self._server.holders}

    def record_bulk_holders(
        self,
        name: str,  # noqa: ARG002  # there is one
        holders: Mapping[str, BulkHolder | None],
    ) -> None:
        """Change records; the driver may be killed before or after."""
        self._fault()
        changed = {**self._server.holders, **holders}
        self._server.holders = {token: one for token, one in changed.items() if one is not None}
        self._fault()


class Snapshot:
    """The payloads that a worker has read, as the collection that `SkipUnchanged` asks."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads

    def retrieve(
        self,
        ids: Sequence[PointId],
        fields: Sequence[str],  # noqa: ARG002  # more do no harm
        *,
        all_replicas: bool = False,  # noqa: ARG002  # there is one
    ) -> Mapping[PointId, dict[str, Any]]:
        """Return those of the ids."""
        return {id_: self._payloads[id_] for id_ in ids if id_ in self._payloads}
