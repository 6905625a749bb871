"""Tests of creating and dropping collections."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from msmarco_qdrant import __version__
from msmarco_qdrant.collection.create import (
    check_collection_name,
    create_collection,
    create_physical,
    drop_collection,
    drop_if_empty,
)
from msmarco_qdrant.collection.generations import physical_collections
from msmarco_qdrant.collection.migration import CollectionPlan, Target, load_migrations
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    PayloadIndex,
    PointBatch,
    SparseVector,
    StorageSettings,
)
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding.bm25 import Bm25Encoder
from msmarco_qdrant.errors import CollectionNotFoundError, StoreCorruptError, StoreError, UsageError
from msmarco_qdrant.ingest.alias_guard import resolve_alias
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.run import IngestRun
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.ingest.windows import RowStream
from msmarco_qdrant.migrate.status import migration_status
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.sources.corpus import as_rows
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder, NullStore
from tests.engines import new_store
from tests.generations import physical
from tests.reembed.concurrent.call_hooks import hooked

OWN = ("0001_create_passages", "0002_payload_indexes")
NOT_QUANTIZED = StorageSettings(quantization="none")


def test_a_collection_appears_when_it_is_complete(tmp_path: Path) -> None:
    """Its metadata contain everything needed to encode in the same way."""
    encoder_info = HashingEncoder().info
    with closing(open_store(tmp_path, create=True)) as store:
        metadata = create_collection(store, "films", encoder_info, Bm25Settings())
        assert store.metadata("films") == metadata
        assert store.aliases() == {"films": "films__0001"}
    assert metadata == CollectionMetadata(
        schema_version=1,
        package_version=__version__,
        encoder=encoder_info,
        bm25=Bm25Settings(),
        migrations=OWN,
    )


class CrashingStore(NullStore):
    """A store that fails once, before a given step."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    def _crash(self, step: str) -> None:
        if self.step == step:
            self.step = ""
            raise StoreError("crash")

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Fail here if this is the step."""
        self._crash("metadata")
        super().put_metadata(name, metadata)

    def drop_collection(self, name: str) -> None:
        """Fail here if this is the step."""
        if name == self.step:
            self._crash(name)
        super().drop_collection(name)

    def set_alias(self, alias: str, name: str) -> None:
        """Fail here if this is the step."""
        self._crash("alias")
        super().set_alias(alias, name)


@pytest.mark.parametrize("step", ["metadata", "alias"])
def test_a_failed_creation_can_be_repeated(step: str) -> None:
    """The alias is set last."""
    store = CrashingStore(step)
    encoder_info = HashingEncoder().info
    with pytest.raises(StoreError, match="crash"):
        create_collection(store, "films", encoder_info, Bm25Settings())
    assert store.aliases() == {}
    create_collection(store, "films", encoder_info, Bm25Settings())
    assert store.aliases() == {"films": "films__0001"}


@pytest.mark.parametrize("is_known", [False, True])
def test_a_creation_without_its_indexes_is_completed(store: Store, is_known: bool) -> None:
    """A kill between two migrations left it, before or after the ledger was written."""
    begin(store, "msmarco__0001", is_known=is_known)
    info = store.collection("msmarco__0001").info()
    assert ({}, 0) == (info.spec.payload_indexes, info.last_seq)

    ingest_passages([Passage("1", "one")], store, encoder=HashingEncoder())

    assert OWN == store.metadata("msmarco").migrations
    info = store.collection("msmarco").info()
    assert ("msmarco__0001", 1) == (info.name, info.points)
    indexes = {"seq": "integer"} if store.capabilities.payload_indexes else {}
    assert indexes == info.spec.payload_indexes


@pytest.mark.parametrize("is_known", [False, True])
def test_a_target_without_its_indexes_is_completed(store: Store, is_known: bool) -> None:
    """A repeated re-embedding completes it."""
    fields: dict[str, PayloadIndex] = {"year": "integer"}
    passages = [Passage("1", "one", {"year": 1895})]
    ingest_passages(passages, store, encoder=HashingEncoder(), payload_indexes=fields)
    begin(store, "msmarco__0002", HashingEncoder(32), is_known=is_known)
    copying = migration_status(store, "msmarco").copying
    assert ("msmarco__0002" if is_known else None) == (copying and copying.target)

    report = reembed_collection(
        store, encoder=HashingEncoder(32), load_old=lambda _: HashingEncoder(), allow_worse=True
    )

    assert ("msmarco__0002", 1) == (report.new, report.passages)
    assert OWN == store.metadata("msmarco").migrations
    specs = [store.collection(f"msmarco__000{number}").info().spec for number in (1, 2)]
    assert specs[0].payload_indexes == specs[1].payload_indexes


def begin(
    store: Store, physical: str, encoder: HashingEncoder | None = None, *, is_known: bool
) -> None:
    """Create a physical collection without its indexes, with or without its ledger."""
    first = load_migrations()[:1]
    encoder_info = (encoder or HashingEncoder()).info
    plan = CollectionPlan(physical, encoder_info, Bm25Settings(), NOT_QUANTIZED)
    if is_known:
        source = None if physical == "msmarco__0001" else "msmarco__0001"
        create_physical(store, plan, first, copied_from=source, swaps=1)
    else:
        first[0].operation.apply(Target(store, plan))


def test_the_name_of_the_locks_is_refused() -> None:
    """It is a collection of every server that was migrated."""
    with pytest.raises(UsageError, match="reserved for locks"):
        check_collection_name("msmarco_qdrant_locks")


def test_a_physical_collection_with_more_migrations(tmp_path: Path) -> None:
    """They are applied while it is empty and has no alias."""
    (tmp_path / "0005_shorter.py").write_text(
        "from msmarco_qdrant.operations import SetBm25\n"
        "DESCRIPTION = 'shorter texts'\n"
        "OPERATION = SetBm25(avg_len=12)\n"
    )
    encoder_info = HashingEncoder().info
    with closing(open_store(":memory:", create=True)) as store:
        plan = CollectionPlan("films__0002", encoder_info, Bm25Settings(), NOT_QUANTIZED)
        migrations = [*load_migrations(), *load_migrations(tmp_path)]
        metadata = create_physical(store, plan, migrations)
        assert (*OWN, "0005_shorter") == metadata.migrations
        assert Bm25Settings(avg_len=12) == metadata.bm25
        assert metadata == store.metadata("films__0002")
        assert {} == store.aliases()


# ---- dropping ------------------------------------------------------------------------------


def with_shadow(store: Store) -> None:
    """Create a collection of two passages, another physical one, and another name."""
    ingest_passages([Passage("1", "one"), Passage("2", "two")], store, encoder=HashingEncoder())
    physical(store, HashingEncoder(32))
    ingest_passages([Passage("1", "one")], store, collection="films", encoder=HashingEncoder())


def test_all_physical_collections_are_dropped(store: Store) -> None:
    """The passages of the live one are counted; other collections stay."""
    with_shadow(store)

    assert 2 == drop_collection(store, "msmarco")

    assert {"films": "films__0001"} == store.aliases()
    assert [] == list(physical_collections(store, "msmarco"))
    with pytest.raises(CollectionNotFoundError):
        drop_collection(store, "msmarco")


def test_a_collection_without_an_alias_is_dropped(store: Store) -> None:
    """By its base name; a physical collection's name drops that one only."""
    with_shadow(store)
    assert 2 == drop_collection(store, "msmarco__0001")
    assert ["msmarco__0002"] == list(physical_collections(store, "msmarco"))

    assert 0 == drop_collection(store, "msmarco")

    assert [] == list(physical_collections(store, "msmarco"))


def test_nothing_is_dropped_if_one_belongs_to_another_application(store: Store) -> None:
    """It has points, a name of this package's form, and no metadata."""
    with_shadow(store)
    spec = store.collection("msmarco").info().spec
    store.create_collection("msmarco__0003", spec)
    vectors = np.full((1, spec.dimension), 0.125, np.float32)
    batch = PointBatch(spec.dense, [1], vectors, [SparseVector([1], [1.0])], [{"seq": 1}])
    store.collection("msmarco__0003").upsert(batch)

    with pytest.raises(StoreCorruptError, match="msmarco__0003"):
        drop_collection(store, "msmarco")

    assert 3 == len(physical_collections(store, "msmarco"))


@pytest.mark.parametrize("live", ["films__0001", "films__0002"])
@pytest.mark.parametrize("step", ["films__0001", "films__0002"])
def test_a_failed_drop_can_be_repeated(step: str, live: str) -> None:
    """The live collection is dropped last; until then the name works."""
    store = CrashingStore(step)
    encoder_info = HashingEncoder().info
    create_collection(store, "films", encoder_info, Bm25Settings())
    physical(store, HashingEncoder(), "films__0002")
    store.set_alias("films", live)
    with pytest.raises(StoreError, match="crash"):
        drop_collection(store, "films")
    assert {"films": live} == store.aliases()
    drop_collection(store, "films")
    assert [] == list(physical_collections(store, "films"))


@pytest.mark.parametrize("engine", ["memory", "loopback"])
@pytest.mark.parametrize("call", ["info", "remove_alias", "set_alias", "drop_collection"])
def test_a_collection_of_a_failed_ingest_is_dropped_without_a_loss(
    tmp_path: Path, engine: str, call: str
) -> None:
    """Another client writes before any of its calls: the passage is there, or is not counted."""
    with new_store(engine, tmp_path) as store:
        create_collection(store, "films", HashingEncoder().info, Bm25Settings())
        guard = resolve_alias(store, "films")
        target = IngestTarget(
            guard.collection, guard.metadata.encoder, Bm25Encoder(Bm25Settings()), HashingEncoder()
        )
        acts: list[str] = []
        written = 0

        def write(name: str) -> None:
            nonlocal written
            if name == call and not acts:
                acts.append(name)
                rows = as_rows([Passage("1", "a film")])
                run = IngestRun(target, guard, RejectCount(None), None)
                with suppress(StoreError):  # the collection was dropped
                    run.ingest(RowStream(rows), 1, None)
                    written = run.counts.written

        drop_if_empty(hooked(store, write), "films", guard.physical)
        assert (call == "set_alias") == (acts == [])
        found = store.aliases().get("films")
        assert written == (store.collection(found).info().points if found else 0)
        assert (call == "drop_collection") == (not written and bool(acts))
