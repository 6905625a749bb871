"""Probes: the store is asked once a second, however many probes there are."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing
from pathlib import Path

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.async_client import AsyncSearchClient
from msmarco_qdrant.service.readiness import (
    PassageCount,
    ReplicaWatch,
    Running,
    SidecarReadiness,
)
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.startup import Opened, Startup
from msmarco_qdrant.service.worker.worker import Worker
from msmarco_qdrant.settings import load_settings
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.reembed.concurrent.call_hooks import hooked
from tests.service.sidecars import CountedModels


def test_probes_within_a_second_share_an_answer(tmp_path: Path, spool: Spool) -> None:
    """A hundred probes at once and one after another; a second later the store is asked again."""
    calls: Counter[str] = Counter()
    with closing(open_store(tmp_path / "store", create=True)) as store:
        ingest_passages([Passage("1", "one")], store, encoder=HashingEncoder(), optimize=False)
        counted = hooked(store, lambda name: calls.update([name]))
        asyncio.run(_probe(counted, spool, calls))


async def _probe(store: Store, spool: Spool, calls: Counter[str]) -> None:
    now = [0.0]
    encoder = HashingEncoder()
    async with await AsyncSearchClient.open(store, encoder=encoder) as client:
        running = Running(
            "msmarco",
            Opened(store, store, encoder, None),
            client,
            Worker(spool, store, encoder),
            PassageCount(store, "msmarco"),
            ReplicaWatch(store, "msmarco"),
        )
        startup = Startup(load_settings({}), CountedModels())
        readiness = SidecarReadiness(startup, lambda: running, timeout_s=60.0, clock=lambda: now[0])
        first = await asyncio.gather(*(readiness.checks() for _ in range(100)))
        asked = calls["info"]
        assert asked
        assert all(checks == first[0] for checks in first)
        now[0] = 0.9
        assert first[0] == await readiness.checks()
        assert asked == calls["info"]
        now[0] = 1.1
        await readiness.checks()
        assert 2 * asked == calls["info"]
