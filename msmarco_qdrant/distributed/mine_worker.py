"""The worker of a distributed mining: it mines one part after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msmarco_qdrant.core.search_types import Fusion, SearchMode
from msmarco_qdrant.distributed.clients import ClientSettings
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.train.mine_parts import MinedPart, QueryPart
from msmarco_qdrant.train.mine_search import PartMiner
from msmarco_qdrant.train.mine_systems import MiningSystem


@dataclass(frozen=True, slots=True)
class SystemSettings:
    """A `MiningSystem` without its client, as the driver found it.

    Attributes:
        name: See `MiningSystem`, also for the others.
        collection: The collection.
        mode: The mode.
        fusion: The fusion.
        ef: Candidates considered in the graph.
        fingerprint: The fingerprint of the collection's model.
        tenant: The tenant.
    """

    name: str
    collection: str
    mode: SearchMode
    fusion: Fusion
    ef: int
    fingerprint: str
    tenant: str | None

    @classmethod
    def of(cls, system: MiningSystem) -> SystemSettings:
        """Return the settings of a system."""
        return cls(
            system.name,
            system.client.collection,
            system.mode,
            system.fusion,
            system.ef,
            system.fingerprint,
            system.tenant,
        )

    def to_system(self, client: SearchClient) -> MiningSystem:
        """Return the system of another client."""
        return MiningSystem(
            self.name, client, self.mode, self.fusion, self.ef, self.fingerprint, self.tenant
        )


@dataclass(frozen=True, slots=True)
class MineJob:
    """Settings that all parts have in common.

    Attributes:
        systems: The systems.
        ranks: The ranks of the candidates, from 0.
    """

    systems: Sequence[SystemSettings]
    ranks: range


class MineWorker:
    """Opens its clients once, then mines parts, also several at once in threads.

    Args:
        settings: The same for all workers.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._miner: PartMiner | None = None

    def begin(self, job: MineJob) -> None:
        """Open a client on each collection, with its model unless all searches are by words.

        Raises:
            ModelError: If the model cannot be loaded, or is not the collection's.
            StoreError: If the server cannot be reached.
        """
        clients: dict[str, SearchClient] = {}
        for one in job.systems:
            if one.collection not in clients:
                modes = [other.mode for other in job.systems if other.collection == one.collection]
                clients[one.collection] = self._settings.open(
                    one.collection, bm25_only={*modes} == {"bm25"}
                )
        systems = [one.to_system(clients[one.collection]) for one in job.systems]
        self._miner = PartMiner(systems, job.ranks)

    def run_split(self, work: QueryPart) -> Iterator[MinedPart]:
        """Mine a part, and yield its candidates.

        Raises:
            MsmarcoQdrantError: If it failed; the same part can be mined again.
        """
        if self._miner is None:
            raise RuntimeError("begin was not called")
        yield self._miner.mine(work)

    def done(self) -> int:
        """Return 0: the searches of unfinished parts are lost with this process."""
        return 0
