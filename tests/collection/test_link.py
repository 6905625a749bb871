"""A missing alias is found, named in one line, and restored by `link_collection` (V4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from msmarco_qdrant.collection.create import create_physical
from msmarco_qdrant.collection.describe import describe_store
from msmarco_qdrant.collection.link import link_collection
from msmarco_qdrant.collection.migration import CollectionPlan, load_migrations
from msmarco_qdrant.core.collection_types import Bm25Settings, StorageSettings
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import (
    MsmarcoQdrantError,
    SchemaError,
    StoreCorruptError,
    StoreError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.service.startup import Startup
from msmarco_qdrant.settings import load_settings
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.engines import ENGINES_MEMORY_FIRST, new_store
from tests.loopback import LoopbackServer

ADVICE = "`msmarco-qdrant migrate link films --store {}`"


@pytest.fixture(params=ENGINES_MEMORY_FIRST)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, passages: Sequence[Passage]
) -> Iterator[Store]:
    """A store of each engine with `films__0001`, whose alias is missing."""
    with new_store(request.param, tmp_path) as opened:
        ingest_passages(
            passages, opened, collection="films", encoder=HashingEncoder(), optimize=False
        )
        opened.remove_alias("films")
        yield opened


def add_copy(store: Store, copied_from: str | None) -> None:
    """Create `films__0002` of another model, with one point."""
    encoder = HashingEncoder(salt="2")
    storage = StorageSettings(quantization="none")
    plan = CollectionPlan("films__0002", encoder.info, Bm25Settings(), storage)
    create_physical(store, plan, load_migrations(), copied_from=copied_from)
    remove = "films" not in store.aliases()
    store.set_alias("films", "films__0002")
    ingest_passages([Passage("1", "a film")], store, collection="films", encoder=encoder)
    if remove:
        store.remove_alias("films")


def uses(store: Store) -> Sequence[Callable[[], object]]:
    """What people do with a collection, each of which must name the remedy."""
    encoder = HashingEncoder()
    return [
        lambda: SearchClient.open(store, collection="films", encoder=encoder),
        lambda: ingest_passages([Passage("9", "x")], store, collection="films", encoder=encoder),
        lambda: ingest_passages([Passage("9", "x")], store, collection="films", model="missing"),
        lambda: describe_store(store, "films"),
    ]


def test_v4_a_missing_alias_is_told_and_restored(store: Store) -> None:
    """Each use names the collection and the command, none advises to drop; then all is back."""
    for use in uses(store):
        with pytest.raises(MsmarcoQdrantError) as raised:
            use()
        text = str(raised.value)
        assert "films__0001 (5 passages, costless-64)" in text
        assert text.endswith(ADVICE.format(store.dsn))
        assert "drop" not in text
        assert ["films__0001"] == list(store.physical_names())

    assert "films__0001" == link_collection(store, "films")
    assert "films__0001" == link_collection(store, "films")  # again: nothing changes
    assert 5 == describe_store(store, "films").collections[0].info.points
    ingest_passages([Passage("9", "x")], store, collection="films", encoder=HashingEncoder())
    assert 6 == store.collection("films").info().points


def test_v4_the_store_names_what_has_no_alias(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """`info` without a name lists no such collection, but warns in one line."""
    assert () == describe_store(store).collections
    (warning,) = caplog.messages
    assert warning.endswith(ADVICE.format(store.dsn))


def test_v4_a_collection_that_is_being_filled_is_not_linked(store: Store) -> None:
    """By itself only a complete one; by name neither, while its source exists."""
    add_copy(store, "films__0001")
    with pytest.raises(UsageError, match=r"films__0002 is not complete.*from films__0001"):
        link_collection(store, "films", to="films__0002")
    assert "films__0001" == link_collection(store, "films")


def test_v4_an_only_copy_is_linked_by_name(store: Store) -> None:
    """The source is gone, so `--to` accepts it."""
    add_copy(store, "films__0001")
    store.drop_collection("films__0001")
    with pytest.raises(UsageError, match="--to films__0002"):
        link_collection(store, "films")
    with pytest.raises(MsmarcoQdrantError, match="migrate link films --to films__0002"):
        store.collection("films")
    assert "films__0002" == link_collection(store, "films", to="films__0002")


def test_v4_several_complete_collections_are_listed(store: Store) -> None:
    """With points and model; `to` chooses, and an alias that points elsewhere stays."""
    add_copy(store, None)
    with pytest.raises(UsageError) as raised:
        link_collection(store, "films")
    assert "films__0001 (5 passages, costless-64); films__0002 (1 passages" in str(raised.value)
    assert "--to films__0002" in str(raised.value)
    assert "films__0002" == link_collection(store, "films", to="films__0002")
    with pytest.raises(SchemaError, match=r"points to films__0002.*nothing was changed"):
        link_collection(store, "films", to="films__0001")
    assert {"films": "films__0002"} == store.aliases()


def test_v4_an_interrupted_restore_is_not_linked(store: Store) -> None:
    """The message names the command that goes on with it."""
    metadata = replace(store.metadata("films__0001"), restoring="a backup")
    store.put_metadata("films__0001", metadata)
    for to in (None, "films__0001"):
        with pytest.raises(UsageError, match="restore again"):
            link_collection(store, "films", to=to)
    with pytest.raises(MsmarcoQdrantError, match="restore again"):
        store.collection("films")


def test_v4_what_is_not_ours_is_refused(store: Store) -> None:
    """Other names, physical names, missing and empty collections."""
    with pytest.raises(UsageError, match=r"'things__' and four digits"):
        link_collection(store, "things")
    with pytest.raises(UsageError, match="'films__' and four digits, got things__0001"):
        link_collection(store, "films", to="things__0001")
    with pytest.raises(UsageError, match="physical collections"):
        link_collection(store, "films__0001")
    with pytest.raises(MsmarcoQdrantError, match="no collection 'films__0009'"):
        link_collection(store, "films", to="films__0009")
    store.create_collection("films__0003", store.collection("films__0001").info().spec)
    with pytest.raises(StoreCorruptError, match="no metadata"):
        link_collection(store, "films", to="films__0003")


def test_v4_foreign_collections_of_a_server_are_refused(server: LoopbackServer) -> None:
    """One with the name itself, one with a physical name but no metadata, and a foreign alias."""
    with closing(open_store(server.url)) as store:
        ingest_passages([Passage("1", "x")], store, collection="a", encoder=HashingEncoder())
        spec = store.collection("a").info().spec
        store.create_collection("films", spec)
        with pytest.raises(SchemaError, match="another program created"):
            link_collection(store, "films")
        store.create_collection("books__0001", spec)
        with pytest.raises(UsageError, match="its metadata those of msmarco-qdrant"):
            link_collection(store, "books")


def test_v4_the_command_links(
    server: LoopbackServer, tmp_path: Path, passages: Sequence[Passage]
) -> None:
    """`search`, `ingest` and `info` advise it in one line, and it works as advised."""
    with closing(open_store(server.url)) as store:
        ingest_passages(
            passages, store, collection="films", encoder=HashingEncoder(), optimize=False
        )
        store.remove_alias("films")
    source = tmp_path / "more.tsv"
    source.write_text("1\tx\n")
    arguments = ("--store", server.url)
    for line in ("search x", f"ingest {source}", "info"):
        done = command(*line.split(), *arguments, "--collection", "films")
        assert 1 == done.status
        assert 1 == done.err.count("films__0001")
        assert done.err.endswith(f"{ADVICE.format(server.url)}\n")
    done = command("migrate", "link", "films", *arguments)
    assert (0, "films -> films__0001\n", "") == done
    assert 0 == command("info", *arguments, "--collection", "films").status


def test_v4_the_sidecar_does_not_start(store: Store) -> None:
    """It names the remedy before it loads a model, and creates nothing."""
    if store.dsn == ":memory:":
        pytest.skip("a sidecar opens the store itself")
    settings = load_settings({"store": store.dsn, "collection": "films"})
    with pytest.raises(StoreError, match="migrate link films"):
        Startup(settings, NoModels()).run(lambda opened: opened)
    assert {} == store.aliases()


class NoModels:
    """Models that must not be loaded."""

    def new(self) -> Encoder:
        """Fail."""
        raise AssertionError("a model was loaded")

    def of(self, encoder_info: EncoderInfo) -> Encoder:
        """Fail."""
        raise AssertionError(encoder_info)

    def reranker(self) -> None:
        """Fail."""
        raise AssertionError("a model was loaded")
