"""A change of model under traffic: no search fails, and nothing that was acknowledged is lost.

The migration is held where it matters until the traffic has gone on for a while: so whatever the
timing, there are writes, removals and searches before it, in each of its phases, and after it.
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
from tests.reembed.concurrent.doors import Door
from tests.reembed.concurrent.ledger import check_holds
from tests.reembed.concurrent.running import NAME, NEW, OLD, filled, reembed, rollback, traffic_at
from tests.reembed.concurrent.traffic import Traffic
from tests.reembed.concurrent.watching import watched

PASSAGES = 100


class Holds:
    """Called before each of a migration's calls: waits for the traffic around what matters.

    Attributes:
        held: Before which calls it has waited.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._calls: list[str] = []
        self.held: list[str] = []

    def __call__(self, call: str) -> None:
        """Wait before the first write, before the swap, after it, and before a later write."""
        is_after_swap = self._calls[-1:] == ["set_alias"]
        is_first = call == "upsert_if_seq" and "upsert_if_seq" not in self._calls
        is_late = call == "upsert_if_seq" and self.held[-1:] == ["after the swap"]
        self._calls.append(call)
        if is_after_swap or is_first or is_late or call == "set_alias":
            self._traffic.go_on()
            self.held.append("after the swap" if is_after_swap else call)


def change_under(traffic: Traffic, store: Store, change: Callable[[Store], object]) -> None:
    """Change the model, held where it matters, with traffic before and after."""
    traffic.go_on()
    holds = Holds(traffic)
    change(watched(store, holds))
    traffic.go_on()
    assert ["upsert_if_seq", "set_alias", "after the swap"] == holds.held[:3]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_new_model_under_traffic(engine: str, tmp_path: Path) -> None:
    """Every passage that was written is there with the new vector, each removed one is gone."""
    with new_store(engine, tmp_path) as store:
        ledger = filled(store, PASSAGES)
        with traffic_at(store, ledger, seed=1) as traffic:
            change_under(traffic, store, reembed)
        print(f"\n{engine}: {traffic}")
        check_holds(store, NAME, ledger.expected, NEW)


@pytest.mark.parametrize("engine", ENGINES)
def test_there_and_back_again_under_traffic(engine: str, tmp_path: Path) -> None:
    """Rollback loses nothing either; then nothing is left of the new model, for searchers too."""
    with new_store(engine, tmp_path) as store:
        ledger = filled(store, PASSAGES)
        with traffic_at(store, ledger, seed=2) as traffic:
            change_under(traffic, store, reembed)
            change_under(traffic, store, rollback)
            assert ("msmarco__0002",) == prune_collection(store, NAME)
            traffic.go_on()
        print(f"\n{engine}: {traffic}")
        check_holds(store, NAME, ledger.expected, OLD)


def test_there_and_back_and_there_again_under_traffic(tmp_path: Path) -> None:
    """What was copied by an earlier change is not taken for a copy of a later one."""
    with new_store("edge", tmp_path) as store:
        ledger = filled(store, PASSAGES)
        with traffic_at(store, ledger, seed=3) as traffic:
            for change in (reembed, rollback, reembed):
                change_under(traffic, store, change)
        check_holds(store, NAME, ledger.expected, NEW)


def test_a_new_model_under_traffic_and_faults() -> None:
    """One of ten of the migration's calls is refused, cut, or answered to nobody, and repeated."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ledger = filled(store, PASSAGES)
        with (
            traffic_at(store, ledger, seed=4) as traffic,
            Door(server) as door,
            closing(open_store(door.url, connection=PATIENT)) as handle,
        ):
            door.faults.use(Schedule(4, share=0.1))
            change_under(traffic, handle, reembed)
        assert door.faults.count() > 0
        check_holds(store, NAME, ledger.expected, NEW)
