"""A re-embedding under traffic: no search fails, and no acknowledged write is lost.

The re-embedding pauses at its critical calls until the traffic has made progress. So with any
timing there are writes, deletes and searches before it, in each of its phases, and after it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant.reembed.api import prune_collection
from msmarco_qdrant.stores import Store, open_store
from tests.engines import ENGINES, new_store
from tests.faults.test_schedules import PATIENT, Schedule
from tests.loopback import LoopbackServer
from tests.reembed.concurrent.call_hooks import hooked
from tests.reembed.concurrent.expected_passages import check_holds
from tests.reembed.concurrent.proxy import ClientProxy
from tests.reembed.concurrent.scenario import NAME, NEW, fill, reembed, rollback, start_traffic
from tests.reembed.concurrent.traffic import Traffic

PASSAGES = 60


class Pauses:
    """A hook that waits for traffic before the critical calls of a re-embedding.

    Attributes:
        held: The calls before which it has waited.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._calls: list[str] = []
        self.held: list[str] = []

    def __call__(self, call: str) -> None:
        """Wait before the first write, the swap, the call after it, and a later write."""
        is_after_swap = self._calls[-1:] == ["set_alias"]
        is_first = call == "upsert_if_seq" and "upsert_if_seq" not in self._calls
        is_late = call == "upsert_if_seq" and self.held[-1:] == ["after the swap"]
        self._calls.append(call)
        if is_after_swap or is_first or is_late or call == "set_alias":
            self._traffic.go_on()
            self.held.append("after the swap" if is_after_swap else call)


def change_under(traffic: Traffic, store: Store, change: Callable[[Store], object]) -> None:
    """Change the model with pauses, and with traffic before and after."""
    traffic.go_on()
    pauses = Pauses(traffic)
    change(hooked(store, pauses))
    traffic.go_on()
    assert ["upsert_if_seq", "set_alias", "after the swap"] == pauses.held[:3]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_changes_in_both_directions_under_traffic(engine: str, tmp_path: Path) -> None:
    """Every passage has its vector of the last model, and no deleted one exists.

    The third change finds copies of the first one, which it does not mistake for its own. Over the
    loopback server this takes 28 s of processor time, as Python answers all of the traffic.
    """
    with new_store(engine, tmp_path) as store:
        expected = fill(store, PASSAGES)
        with start_traffic(store, expected, seed=2, pause_s=0.1) as traffic:
            for change in (reembed, rollback, reembed):
                change_under(traffic, store, change)
            assert ("msmarco__0001",) == prune_collection(store, NAME)
            traffic.go_on()
        check_holds(store, NAME, expected.passages, NEW)


@pytest.mark.slow
def test_a_new_model_under_traffic_and_faults() -> None:
    """One of ten calls of the re-embedding fails or loses its answer, and is repeated."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        expected = fill(store, PASSAGES)
        with (
            start_traffic(store, expected, seed=4, pause_s=0.1) as traffic,
            ClientProxy(server) as proxy,
            closing(open_store(proxy.url, connection=PATIENT)) as handle,
        ):
            proxy.faults.use(Schedule(4, share=0.1))
            change_under(traffic, handle, reembed)
        assert proxy.faults.count() > 0
        check_holds(store, NAME, expected.passages, NEW)
