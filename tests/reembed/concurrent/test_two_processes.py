"""Two processes at one collection: who may be there at once, and what the other one is output."""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant.errors import StoreInUseError
from msmarco_qdrant.stores import open_store
from tests.engines import new_store
from tests.loopback import LoopbackServer
from tests.reembed.concurrent.expected_passages import check_holds
from tests.reembed.concurrent.proxy import ClientProxy
from tests.reembed.concurrent.scenario import NAME, NEW, fill, reembed
from tests.reembed.concurrent.test_kill import SWAP, Killer, program, run

PASSAGES = 30


@pytest.mark.slow
def test_edge_refuses_a_second_process(tmp_path: Path) -> None:
    """Whatever it wants: to change the model, to search or to write; and it changes nothing."""
    with new_store("edge", tmp_path) as store:
        expected = fill(store, PASSAGES)
        with program(store.dsn, "reembed", "rollback", "search", "ingest") as process:
            output, _ = process.communicate()
        assert 4 == process.returncode
        holder = f"is in use by process {os.getpid()} on "
        for work in ("reembed", "rollback", "search", "ingest"):
            assert re.search(
                f"^{work}: StoreInUseError: the store .* {holder}", output, re.MULTILINE
            )
        reembed(store)
        check_holds(store, NAME, expected.passages, NEW)


@pytest.mark.slow
def test_edge_names_the_other_process(tmp_path: Path) -> None:
    """The other way round: while it works, and nothing of it is in the way afterwards."""
    with new_store("edge", tmp_path) as store:
        expected = fill(store, PASSAGES)
        dsn = store.dsn
    with program(dsn, "reembed-and-wait") as process:
        assert process.stdout is not None
        assert "changed" == next(line.strip() for line in process.stdout if "changed" in line)
        with pytest.raises(StoreInUseError, match=f"in use by process {process.pid} on "):
            open_store(dsn)
        process.communicate("go on\n")
        assert 0 == process.returncode
    with closing(open_store(dsn)) as again:
        check_holds(again, NAME, expected.passages, NEW)


@pytest.mark.slow
def test_a_server_refuses_a_second_process() -> None:
    """While one stands before its swap the other one is refused; both end with one result."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        expected = fill(store, PASSAGES)
        said: list[str] = []

        def second(seen: Killer) -> None:
            if seen.kinds[-1] != SWAP:
                return
            with pytest.raises(StoreInUseError) as refused:
                reembed(store)
            said.append(str(refused.value))

        first = Killer(None, second)
        with ClientProxy(server, first) as proxy, program(proxy.url, "reembed") as process:
            output, _ = process.communicate()
        assert 0 == process.returncode, output
        (message,) = said
        assert f"'{NAME}' is being migrated by process {process.pid} on " in message
        assert store.migration_locks.holder(NAME) is None
        check_holds(store, NAME, expected.passages, NEW)
        assert 0 == reembed(store).copied
        assert SWAP not in run(server, "reembed", None).kinds
        check_holds(store, NAME, expected.passages, NEW)
