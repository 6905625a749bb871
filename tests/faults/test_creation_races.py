"""Two ingests that create the same collection at once."""

from __future__ import annotations

from contextlib import closing

import pytest

from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.faults.test_schedules import expected_of, ingest, make_passages, stored
from tests.loopback import LoopbackServer
from tests.stores.server.test_store import before_call


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [n if n % 5 == 0 else pytest.param(n, marks=pytest.mark.slow) for n in range(21)],
)
def test_another_ingest_may_come_first_at_any_moment(number: int) -> None:
    """Before each of our calls in turn, another ingest is done from end to end."""
    passages = make_passages(1, 0)
    ours, theirs = passages[:30], passages[30:60]
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        before_call(store, number, lambda: ingest(server, theirs))
        report = ingest_passages(ours, store, encoder=HashingEncoder(16))
        assert 30 == report.written
        assert expected_of(passages[:60]) == stored(server)
        ledger = store.metadata("msmarco").migrations
        assert ("0001_create_passages", "0002_payload_indexes") == ledger
