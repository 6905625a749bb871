"""The systems that mining takes candidates from: a collection and a search mode each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.core.search_types import Fusion, SearchMode
from msmarco_qdrant.errors import ModelMismatchError, UsageError
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.driver import run_steps
from msmarco_qdrant.search.options import to_request
from msmarco_qdrant.search.request import MAX_LIMIT

if TYPE_CHECKING:
    from msmarco_qdrant.core.metadata_types import CollectionMetadata
    from msmarco_qdrant.search.options import SearchOptions
    from msmarco_qdrant.search.point_parts import QueryVectors
    from msmarco_qdrant.search.request import SearchRequest

Clients: TypeAlias = SearchClient | Mapping[str, SearchClient]


@dataclass(frozen=True, slots=True)
class MiningSystem:
    """A search mode of one collection, with the search defaults that the collection has now.

    Attributes:
        name: Its name in the file.
        client: A client of the collection.
        mode: "dense", "bm25" or "hybrid".
        fusion: The fusion of "hybrid".
        ef: Candidates considered in the graph.
        fingerprint: The fingerprint of the collection's model.
        tenant: The tenant whose passages are searched; None for a collection without tenants.
    """

    name: str
    client: SearchClient
    mode: SearchMode
    fusion: Fusion
    ef: int
    fingerprint: str
    tenant: str | None

    def search(self, queries: Sequence[str], limit: int) -> list[list[str]]:
        """Return the pids of the best passages of each query.

        Raises:
            ModelMismatchError: If the collection was re-embedded since mining began.
            StoreError: If the engine fails.
        """
        session = self.client.session
        found = run_steps(session, session.find_pids(queries, self._options(limit)))
        self._check_model(self.client.metadata)
        return found

    def prepare(
        self, queries: Sequence[str], limit: int
    ) -> tuple[list[QueryVectors], SearchRequest]:
        """Return the vectors and the request of the same search, for another process.

        Raises:
            ModelMismatchError: If the collection was re-embedded since mining began.
            StoreError: If the engine fails.
        """
        session = self.client.session
        vectors = run_steps(session, session.current.encode(queries, self.mode))
        self._check_model(self.client.store.metadata(self.client.collection))
        return vectors, to_request(self._options(limit))

    def _options(self, limit: int) -> SearchOptions:
        return {
            "limit": limit,
            "mode": self.mode,
            "fusion": self.fusion,
            "ef": self.ef,
            "tenant": self.tenant,
        }

    def _check_model(self, metadata: CollectionMetadata) -> None:
        if metadata.encoder.fingerprint != self.fingerprint:
            raise ModelMismatchError(
                f"collection '{self.client.collection}' was re-embedded with "
                f"{metadata.encoder.model} during mining: mine it again, into another folder"
            )

    def settings(self) -> dict[str, Any]:
        """Return what decides about its candidates, as JSON values."""
        info = self.client.metadata.encoder
        dense = {"model": info.model, "fingerprint": info.fingerprint, "ef": self.ef}
        fusion = {"fusion": to_json_value(self.fusion)}
        return {
            "collection": self.client.collection,
            "mode": self.mode,
            "tenant": self.tenant,
            **(dense if self.mode != "bm25" else {}),
            **(fusion if self.mode == "hybrid" else {}),
        }


def make_systems(
    client: Clients, modes: Sequence[SearchMode], tenant: str | None
) -> list[MiningSystem]:
    """Return the systems of each collection and mode, collections first.

    One client's systems are its model's name, "bm25" and "hybrid"; those of a mapping are its
    names, "NAME bm25" and "NAME hybrid".

    Raises:
        UsageError: For no or an unknown mode, no client, two systems of one name, a collection with
            tenants if none is given, or the other way round.
    """
    check_modes(modes)
    systems = [
        _make(name, one, mode, tenant) for name, one in _named(client).items() for mode in modes
    ]
    names = [system.name for system in systems]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"each system needs its own name, got {name!r} twice: rename a client")
    return systems


def mine_settings(systems: Sequence[MiningSystem], ranks: range) -> dict[str, Any]:
    """Return what decides about the candidates, for the settings of a folder."""
    return {
        "depth": ranks.stop,
        "first_rank": ranks.start + 1,
        "systems": {system.name: system.settings() for system in systems},
    }


def require_encoders(systems: Sequence[MiningSystem]) -> None:
    """Refuse clients without the encoder that a mode needs.

    Raises:
        UsageError: If one has none.
    """
    for system in systems:
        if system.mode != "bm25":
            _ = system.client.encoder


def check_modes(modes: Sequence[SearchMode]) -> None:
    """Refuse modes that are not a list of different search modes."""
    known = get_args(SearchMode)
    if isinstance(modes, str) or not isinstance(modes, Sequence) or not modes:
        raise UsageError(f"modes must be a list of {', '.join(known)}, got {modes!r}")
    for mode in modes:
        if mode not in known:
            raise UsageError(f"modes must be of {', '.join(known)}, got {mode!r}")
    if len({*modes}) < len(modes):
        raise UsageError(f"modes must differ, got {', '.join(modes)}")


def limit_for(depth: int, positives: int) -> int:
    """Return the hits to search for, so that enough are left without the positives.

    The numbers are few, so that queries of one number are searched for together, and each query's
    number depends on itself alone.
    """
    spare = 1
    while spare < positives:
        spare *= 2
    return min(depth + spare, MAX_LIMIT)


def _named(client: Clients) -> Mapping[str, SearchClient]:
    """Return the clients by name; one alone has an empty name."""
    named = {"": client} if isinstance(client, SearchClient) else client
    if not isinstance(named, Mapping) or not named:
        raise UsageError(f"client must be a SearchClient, or several by name, got {client!r}")
    for name, one in named.items():
        if not isinstance(name, str) or not isinstance(one, SearchClient):
            raise UsageError(
                f"client must be a SearchClient, or several by name, got {name!r}: {one!r}"
            )
    return named


def _make(name: str, client: SearchClient, mode: SearchMode, tenant: str | None) -> MiningSystem:
    client.session.current.scope(tenant)  # refuse a tenant too much or too few
    request: SearchRequest = to_request({"mode": mode}, client.metadata.search_defaults)
    return MiningSystem(
        " ".join(_words(name, client, mode)),
        client,
        mode,
        request.fusion,
        request.ef,
        client.metadata.encoder.fingerprint,
        tenant,
    )


def _words(name: str, client: SearchClient, mode: SearchMode) -> Iterator[str]:
    if name:
        yield name
    elif mode == "dense":
        model = client.metadata.encoder.model
        yield Path(model).name or model
    if mode != "dense":
        yield mode
