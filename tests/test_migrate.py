"""What creates a collection."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmarco_qdrant import __version__
from msmarco_qdrant.errors import StoreError, UsageError
from msmarco_qdrant.migrate import create_collection, load_migrations
from msmarco_qdrant.records import Bm25Settings, CollectionMetadata
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import CostlessEncoder, DiscardingStore


def test_our_migrations_are_named_and_described() -> None:
    """In the order of their numbers, each with a line about it."""
    migrations = load_migrations()
    assert migrations[0].name == "0001_create_passages"
    names = [migration.name for migration in migrations]
    assert names == sorted(names)
    assert all(migration.description for migration in migrations)


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


def test_a_file_that_is_no_migration_is_told(tmp_path: Path) -> None:
    """By its name and what it lacks; files of other names are left alone."""
    (tmp_path / "helper.py").write_text("raise RuntimeError")
    assert load_migrations(tmp_path) == []
    (tmp_path / "0007_broken.py").write_text("DESCRIPTION = 'no operation'")
    with pytest.raises(UsageError, match=r"0007_broken\.py is no migration.*'up'"):
        load_migrations(tmp_path)
