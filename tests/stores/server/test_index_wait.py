"""V6: a server that builds no index is not waited for without a bound."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import closing

import pytest
from qdrant_client import models

from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.server.index_wait import stall_reason, wait_for_indexes
from tests.cli.runner import command
from tests.loopback import LoopbackServer
from tests.loopback.conftest import client_of
from tests.stores.server.test_store import NAME, make_things, points


class Machine:
    """A server that answers states in turn, the last for ever, and its clock."""

    def __init__(self, states: Sequence[tuple[str, int]], threads: int | None = None) -> None:
        self.states = list(states)
        self.threads = threads
        self.now = 0.0

    def read(self) -> models.CollectionInfo:
        """The next state."""
        status, indexed = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        config = models.CollectionConfig.model_construct(
            optimizer_config=models.OptimizersConfig.model_construct(
                max_optimization_threads=self.threads
            )
        )
        return models.CollectionInfo.model_construct(
            status=models.CollectionStatus(status),
            optimizer_status="ok",
            indexed_vectors_count=indexed,
            segments_count=2,
            config=config,
        )

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.now += seconds

    def wait(self, stall_s: float) -> models.CollectionInfo:
        """Wait with this machine's clock."""
        return wait_for_indexes(self.read, self.sleep, stall_s, clock=lambda: self.now)


def test_v6_no_progress_ends_the_wait() -> None:
    """A server that stays yellow is waited for as long as it was allowed to make no progress."""
    machine = Machine([("yellow", 10)])
    info = machine.wait(600.0)
    assert ("yellow", True) == (info.status.value, 600 <= machine.now < 605)
    assert "made no progress for 600 s (status yellow, 10 vectors indexed)" in stall_reason(
        info, 600.0
    )


def test_v6_progress_extends_the_wait() -> None:
    """Each newly indexed segment begins the time anew."""
    machine = Machine([*[("yellow", number // 100) for number in range(1000)], ("green", 10)])
    assert "green" == machine.wait(300.0).status
    assert machine.now > 1500


def test_v6_without_threads_nothing_is_waited_for() -> None:
    """No optimizer will ever start, and the reason names the setting."""
    machine = Machine([("yellow", 0)], threads=0)
    info = machine.wait(600.0)
    assert machine.now < 1
    assert "max_optimization_threads of its optimizers is 0" in stall_reason(info, 600.0)


def test_v6_a_wait_without_bound_is_possible() -> None:
    """For those who insist, also without threads: somebody may change the settings."""
    machine = Machine([*[("yellow", 0)] * 5000, ("green", 7)], threads=0)
    assert "green" == machine.wait(math.inf).status
    assert machine.now > 9000


@pytest.fixture
def stalled(server: LoopbackServer) -> LoopbackServer:
    """A server whose collection `things` has points and no optimization thread, yellow for ever."""
    with closing(open_store(server.url)) as store:
        make_things(store).upsert(points(3))
    client = client_of(server)
    client.update_collection(
        NAME, optimizers_config=models.OptimizersConfigDiff(max_optimization_threads=0)
    )
    client.close()
    server.set_status(NAME, "yellow")
    return server


def test_v6_optimize_returns_with_one_line(
    stalled: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is written and searchable; the line names the reason."""
    with caplog.at_level(logging.WARNING), closing(open_store(stalled.url)) as store:
        store.collection("things").optimize()
    (line,) = caplog.messages
    assert "Every passage is written" in line
    assert "max_optimization_threads of its optimizers is 0" in line
    assert "`msmarco-qdrant optimize --wait-index --collection things --store " in line


def test_v6_the_command_exits_with_0(stalled: LoopbackServer) -> None:
    """`optimize` is done, although the server is not."""
    done = command("optimize", "--store", stalled.url, "--collection", "things")
    assert 0 == done.status
    assert "3 passages" in done.out
