"""What a second writer, or a crash in the middle, could undo: it must not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import pytest
from qdrant_client import QdrantClient, models

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.collection.passages import delete_passages, get_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import IngestProgress
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Connection, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.faults.test_schedules import ingest, make_passages, stored
from tests.loopback import LoopbackServer, LostAnswer, Slow

PATIENT = Connection(retry_s=10)


def some(*pids: str) -> Sequence[Passage]:
    """Short passages."""
    return [Passage(pid, f"passage {pid}") for pid in pids]


@pytest.mark.slow
def test_a_repeated_delete_leaves_what_another_has_brought_back() -> None:
    """The answer to a delete is lost, another writes the passage anew, the delete is repeated."""
    with LoopbackServer() as server, closing(open_store(server.url, connection=PATIENT)) as store:
        ingest(server, some("1", "2", "3"))
        server.faults.inject(LostAnswer(), "Points.Delete")
        once = store.collection("msmarco")
        stamp = once.retrieve([3], ["seq"])[3]["seq"]
        with server.inspect() as client:
            before = client.count("msmarco__0001").count
        once.delete([3], up_to_seq=stamp)  # applied, lost, and applied again
        ingest(server, some("3"))
        once.delete([3], up_to_seq=stamp)  # as a repetition would be that comes late
        assert (3, 3) == (before, len(stored(server)))
        assert 1 == delete_passages(store, ["3"])
        assert {} == get_passages(store, ["3"])


def test_a_drop_that_was_cut_leaves_nothing_to_be_found() -> None:
    """Neither under the name, nor by the next collection of that name."""
    with LoopbackServer() as server:
        ingest(server, some("1", "2"))
        with closing(open_store(server.url, connection=Connection(retry_s=0))) as store:
            server.faults.inject(LostAnswer(), "Collections.Delete")
            with pytest.raises(Exception, match="deleting the collection"):
                drop_collection(store, "msmarco")
        server.settle()
        ingest(server, some("7"))
        assert {"7"} == set(stored(server))


def test_a_collection_whose_name_was_taken_away_is_not_taken_over() -> None:
    """Its passages were not written by whoever creates a collection of that name now."""
    with LoopbackServer() as server:
        ingest(server, some("1", "2"))
        gone = models.DeleteAlias(alias_name="msmarco")
        client = QdrantClient(
            url="http://127.0.0.1",
            grpc_port=server.port,
            prefer_grpc=True,
            check_compatibility=False,
        )
        with closing(client):
            client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=gone)])
        with pytest.raises(StoreError, match="migrate link msmarco"):
            ingest(server, some("7"))
        assert {"1", "2"} == set(stored(server))


def test_r17_deleted_passage_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Older passages do not make up for new ones; everything was written, so nothing failed."""
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        count = ingest(server, make_passages(1, 0)).written

        def take_one_away(progress: IngestProgress) -> None:
            if progress.report.written:
                store.collection("msmarco").delete([900001], up_to_seq=2**62)

        report = ingest(server, some("900001", "900002"), on_progress=take_one_away)
        assert (2, 1) == (report.written, report.missing)
        (message,) = [text for text in caplog.messages if "deleted passages" in text]
        assert f"must hold {count + 2:,} passages ({count:,} before this run, 2 added" in message
        assert f"found {count + 1:,}: another client deleted" in message


@pytest.mark.slow
def test_an_ingest_has_several_requests_under_way() -> None:
    """However few passages the encoder gives at once: while one is held, others arrive."""
    with LoopbackServer() as server:
        ingest(server, some("1"))
        server.requests.clear()
        server.faults.inject(Slow(0.5), "Upsert")
        passages = [Passage(f"n{number}", f"passage {number}") for number in range(200)]
        ingest_passages(
            passages,
            server.url,
            encoder=HashingEncoder(16, batch_size=8),
            connection=Connection(batch_points=50),
        )
        assert [50, 50, 50, 50] == [len(one.points) for one in server.requests.of("Upsert")]
        assert 201 == len(stored(server))
