"""What creates a collection."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant import __version__
from msmarco_qdrant.creation import check_collection_name, create_collection, create_physical
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.migration import CollectionPlan, load_migrations
from msmarco_qdrant.records import Bm25Settings, CollectionMetadata, StorageSettings
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import CostlessEncoder, DiscardingStore

NOT_QUANTISED = StorageSettings(quantisation="none")


def test_a_collection_appears_when_it_is_complete(tmp_path: Path) -> None:
    """Under its name, with all that is needed to encode the same way again."""
    card = CostlessEncoder().card
    with_store = open_store(tmp_path, create=True)
    metadata = create_collection(with_store, "films", card, Bm25Settings())
    assert metadata == CollectionMetadata(
        schema_version=1,
        package_version=__version__,
        encoder=card,
        bm25=Bm25Settings(),
        migrations=("0001_create_passages",),
    )
    assert with_store.metadata("films") == metadata
    assert with_store.aliases() == {"films": "films__0001"}
    with_store.close()


class CrashingStore(DiscardingStore):
    """A store that breaks before one of its steps, once."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    def _crash(self, step: str) -> None:
        if self.step == step:
            self.step = ""
            raise StoreError("crash")

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Break here, if so told."""
        self._crash("metadata")
        super().put_metadata(name, metadata)

    def set_alias(self, alias: str, name: str) -> None:
        """Break here, if so told."""
        self._crash("alias")
        super().set_alias(alias, name)


@pytest.mark.parametrize("step", ["metadata", "alias"])
def test_a_creation_that_broke_can_be_repeated(step: str) -> None:
    """Nothing appears under the name before, and the second try completes."""
    store = CrashingStore(step)
    card = CostlessEncoder().card
    with pytest.raises(StoreError, match="crash"):
        create_collection(store, "films", card, Bm25Settings())
    assert store.aliases() == {}
    create_collection(store, "films", card, Bm25Settings())
    assert store.aliases() == {"films": "films__0001"}


def test_the_name_of_the_locks_is_taken() -> None:
    """It is a collection of every server that was migrated."""
    with pytest.raises(UsageError, match="where locks are kept"):
        check_collection_name("msmarco_qdrant_locks")


def test_a_physical_collection_can_have_had_more(tmp_path: Path) -> None:
    """Later migrations are applied to it while it is empty, before any name leads to it."""
    (tmp_path / "0005_shorter.py").write_text(
        "from msmarco_qdrant.operations import SetBm25\n"
        "DESCRIPTION = 'shorter texts'\n"
        "OPERATION = SetBm25(avg_len=12)\n"
    )
    card = CostlessEncoder().card
    with closing(open_store(":memory:", create=True)) as store:
        plan = CollectionPlan("films__0002", card, Bm25Settings(), NOT_QUANTISED)
        migrations = [*load_migrations(), *load_migrations(tmp_path)]
        metadata = create_physical(store, plan, migrations)
        assert ("0001_create_passages", "0005_shorter") == metadata.migrations
        assert Bm25Settings(avg_len=12) == metadata.bm25
        assert metadata == store.metadata("films__0002")
        assert {} == store.aliases()
