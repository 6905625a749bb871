"""Another model for a collection, and the way back: every stage, interrupted and resumed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from msmarco_qdrant import _reembedding
from msmarco_qdrant.creation import create_collection
from msmarco_qdrant.deleting import delete_everywhere
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    IngestStoppedError,
    MigrationError,
    ModelMismatchError,
    ModelNotFoundError,
    StoreInUseError,
    UsageError,
)
from msmarco_qdrant.ingest import ingest_passages
from msmarco_qdrant.migrate import migrate_collection, migration_status
from msmarco_qdrant.passages import delete_passages, get_passages
from msmarco_qdrant.records import Bm25Settings, EncoderCard, HnswSettings, Passage, SettingsChange
from msmarco_qdrant.reembed import (
    prune_collection,
    reembed_collection,
    rollback_collection,
)
from msmarco_qdrant.reports import ReembedProgress, ReembedReport, ReembedStage
from msmarco_qdrant.search import SearchClient
from msmarco_qdrant.search_records import Nearest, PointQuery, SearchEffort
from msmarco_qdrant.stores import Store, alterable
from msmarco_qdrant.stores.locks import held, migration_locks
from msmarco_qdrant.stores.points import point_id
from msmarco_qdrant.testing import CostlessEncoder

from .engines import ENGINES, new_store

if TYPE_CHECKING:
    from numpy.typing import NDArray

V2 = CostlessEncoder(256, salt="v2")
V3 = CostlessEncoder(256, salt="v3")
SMALL = CostlessEncoder(128, salt="small")
LOADED = {one.card: one for one in (V2, V3, SMALL)}
STAGES: tuple[ReembedStage, ...] = ("copy", "index", "compare", "verify", "swap", "last pass")


class InterruptionError(Exception):
    """What a test interrupts with."""


def load_old(card: EncoderCard) -> CostlessEncoder:
    """A costless encoder of a card."""
    return LOADED[card]


def passages(count: int = 30) -> list[Passage]:
    """Some with numbers as pids and some without; each with a word of its own."""
    return [
        Passage(f"x{n}" if n % 3 == 0 else str(n), f"word{n} thing kind{n % 5}", {"n": n})
        for n in range(count)
    ]


def at(stage: ReembedStage, action: Callable[[], object]) -> Callable[[ReembedProgress], None]:
    """A callback that does something once, when a stage begins."""
    left = [action]

    def on_progress(progress: ReembedProgress) -> None:
        if progress.stage == stage and left:
            left.pop()()

    return on_progress


def interrupt() -> None:
    """End a run in the middle."""
    raise InterruptionError


def reembed(store: Store, encoder: CostlessEncoder = V3, **options: Any) -> ReembedReport:
    """With an encoder instead of a model, and the old one to compare with."""
    return reembed_collection(store, "things", encoder=encoder, load_old=load_old, **options)


def rollback(store: Store, encoder: CostlessEncoder = V2, **options: Any) -> ReembedReport:
    """The way back, likewise."""
    return rollback_collection(store, "things", encoder=encoder, load_old=load_old, **options)


def payloads(store: Store, name: str) -> Mapping[object, dict[str, Any]]:
    """Everything that a collection holds of its points but vectors and marks."""
    fields = ("pid", "text", "meta", "text_digest", "meta_digest", "seq")
    return dict(store.collection(name).scan(fields))


def check_holds(store: Store, expected: Sequence[Passage], encoder: CostlessEncoder) -> None:
    """Exactly these passages, each under the vectors of this model."""
    collection, card = store.collection("things"), store.metadata("things").encoder
    assert encoder.card == card
    held_now = {
        one["pid"]: (one["text"], one["meta"]) for one in payloads(store, "things").values()
    }
    assert {one.pid: (one.text, one.meta) for one in expected} == held_now
    if not expected:
        return
    vectors = encoder.encode_queries([one.text for one in expected])
    exact = SearchEffort(exact=True)
    answers = collection.query(
        [
            PointQuery(Nearest(vector, card.vector_name), 1, exact, ids=[point_id(one.pid)])
            for vector, one in zip(vectors, expected, strict=True)
        ]
    )
    assert [pytest.approx(1, abs=1e-5)] * len(expected) == [hits[0].score for hits in answers]


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each engine with thirty passages in 'things'."""
    with new_store(request.param, tmp_path) as opened:
        ingest_passages(passages(), opened, collection="things", encoder=V2)
        yield opened


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Store]:
    """The same on Edge alone, for what no engine has a part in."""
    with new_store("edge", tmp_path) as opened:
        ingest_passages(passages(), opened, collection="things", encoder=V2)
        yield opened


# ---- the whole way -------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [V3, SMALL], ids=["of the same length", "of another length"])
def test_everything_is_there_with_the_new_vectors(store: Store, encoder: CostlessEncoder) -> None:
    """Payloads as they were, `seq` too; the old collection stays and is remembered."""
    before = payloads(store, "things")
    report = reembed(store, encoder)
    check_holds(store, passages(), encoder)
    assert before == payloads(store, "things") == payloads(store, "things__0001")
    assert {"things": "things__0002"} == dict(store.aliases())
    metadata = store.metadata("things")
    assert (None, "things__0001", 1) == (metadata.copied_from, metadata.previous, metadata.swaps)
    assert store.metadata("things__0001").migrations == metadata.migrations
    assert ("things__0001", "things__0002") == (report.old, report.new)
    assert (30, 30, 0, ()) == (
        report.passages,
        report.copied,
        report.removed,
        report.without_vector,
    )
    assert report.comparison is not None
    assert (30, 30, 30) == (
        report.comparison.phrases,
        report.comparison.found_before,
        report.comparison.found_after,
    )


def test_doing_it_again_does_nothing(store: Store) -> None:
    """The name leads where it led, nothing is encoded."""
    reembed(store)
    encoded = V3.encoded
    report = reembed(store)
    assert ("things__0002", "things__0002", 0) == (report.old, report.new, report.copied)
    assert encoded == V3.encoded
    assert 1 == store.metadata("things").swaps


def test_an_empty_collection_is_re_embedded_too(tmp_path: Path) -> None:
    """There is nothing to copy, to index or to ask."""
    with new_store("edge", tmp_path) as store:
        create_collection(store, "things", V2.card, Bm25Settings())
        report = reembed(store)
        assert (0, 0) == (report.passages, report.copied)
        check_holds(store, [], V3)


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_run_goes_on(store: Store, stage: ReembedStage) -> None:
    """Wherever it was: what was encoded before is not encoded again."""
    with pytest.raises(InterruptionError):
        reembed(store, on_progress=at(stage, interrupt))
    assert migration_locks(store).holder("things") is None
    encoded = V3.encoded
    reembed(store)
    assert (30 if stage == "copy" else 0) == V3.encoded - encoded
    check_holds(store, passages(), V3)
    assert {"things": "things__0002"} == dict(store.aliases())
    assert (None, "things__0001") == (
        store.metadata("things").copied_from,
        store.metadata("things").previous,
    )


def test_its_searches_go_on(store: Store) -> None:
    """At every stage, by whichever model is live."""
    top: list[tuple[str, str, float]] = []
    with SearchClient(store, "things", V2, load_encoder=load_old) as client:

        def search(progress: ReembedProgress) -> None:
            hit = client.search("word7 thing kind2", limit=1)[0]
            top.append((progress.stage, hit.pid, round(hit.score, 4)))

        reembed(store, on_progress=search)
        assert set(STAGES) == {stage for stage, _, _ in top}
        assert {("7", 1.0)} == {(pid, score) for _, pid, score in top}
        assert V3.card == client.metadata.encoder


# ---- who writes meanwhile ------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_what_is_written_before_the_swap_is_there(store: Store, stage: ReembedStage) -> None:
    """New, changed, with other meta alone, and deleted; between the last look and the swap too."""
    changed = [
        replace(passages()[1], text="another text"),
        replace(passages()[2], meta={"n": -1}),
        Passage("new", "a new one"),
    ]

    def write() -> None:
        ingest_passages(changed, store, collection="things", encoder=V2, optimize=False)
        assert 1 == delete_passages(store, ["4"], collection="things")

    reembed(store, on_progress=at(stage, write))
    kept = [one for one in passages() if one.pid not in ("1", "2", "4")]
    check_holds(store, [*kept, *changed], V3)


def test_after_the_swap_the_newer_write_wins(store: Store) -> None:
    """A change of before the swap is not copied over one of after it; a deletion stays."""
    first, second = replace(passages()[1], text="first"), replace(passages()[1], text="second")

    def before() -> None:
        ingest_passages([first], store, collection="things", encoder=V2, optimize=False)
        ingest_passages([Passage("4", "late")], store, collection="things", encoder=V2)

    def after() -> None:
        ingest_passages([second], store, collection="things", encoder=V3, optimize=False)
        assert 1 == delete_passages(store, ["4"], collection="things")

    def both(progress: ReembedProgress) -> None:
        at_swap(progress)
        at_last(progress)

    at_swap, at_last = at("swap", before), at("last pass", after)
    reembed(store, on_progress=both)
    kept = [one for one in passages() if one.pid not in ("1", "4")]
    check_holds(store, [*kept, second], V3)


def test_a_return_to_an_older_text_wins_too(store: Store) -> None:
    """What the new collection holds looks unchanged, and is older than what is to be copied."""
    original = passages()[1]
    change, back = replace(original, text="changed"), original

    def both(progress: ReembedProgress) -> None:
        at_swap(progress)
        at_last(progress)

    def write(one: Passage, encoder: CostlessEncoder) -> Callable[[], object]:
        return lambda: ingest_passages(
            [one], store, collection="things", encoder=encoder, optimize=False
        )

    at_swap, at_last = at("swap", write(change, V2)), at("last pass", write(back, V3))
    reembed(store, on_progress=both)
    check_holds(store, passages(), V3)


def test_a_deletion_is_not_undone_by_an_interrupted_last_pass(store: Store) -> None:
    """What was copied and then deleted from the old one alone, as if a process died between."""

    def late() -> None:
        ingest_passages([Passage("late", "late")], store, collection="things", encoder=V2)

    on_progress = at("swap", late)
    reembed_until_copied(store, on_progress)
    metadata = store.metadata("things")
    assert ("things__0001", 1) == (metadata.copied_from, metadata.swaps)
    ingest_passages([Passage("own", "mine")], store, collection="things", encoder=V3)
    store.collection("things__0001").delete([point_id("late")], up_to_seq=2**62)
    reembed(store)
    check_holds(store, [*passages(), Passage("own", "mine")], V3)


def reembed_until_copied(store: Store, on_progress: Callable[[ReembedProgress], None]) -> None:
    """A run that ends in its last pass, after that has copied what there was."""

    def watch(progress: ReembedProgress) -> None:
        on_progress(progress)
        if progress.stage == "last pass" and progress.done:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        reembed(store, on_progress=watch)


def test_who_began_before_the_swap_is_told(store: Store) -> None:
    """A row, then the name is led elsewhere, and another row: what came after it does not count."""

    def source() -> Iterator[Passage]:
        yield Passage("a", "first")
        reembed(store)
        yield Passage("b", "second")

    with pytest.raises(IngestStoppedError, match="re-embedded with costless-256v3") as error:
        ingest_passages(source(), store, collection="things", encoder=V2, window=1)
    assert error.value.report.written < 2  # the first may have gone in before
    again = [Passage("a", "first"), Passage("b", "second")]
    ingest_passages(again, store, collection="things", encoder=V3)
    check_holds(store, [*passages(), *again], V3)


# ---- what is refused -----------------------------------------------------------------------


class Garbled(CostlessEncoder):
    """A model whose phrases have nothing to do with its passages."""

    def encode_queries(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of other words."""
        return super().encode_queries([f"no{number} such" for number, _ in enumerate(phrases)])


class Wordless(CostlessEncoder):
    """A model that knows no word of some passages."""

    def _vectors(self, texts: Any) -> NDArray[np.float32]:
        vectors = super()._vectors(texts)
        vectors[texts.lengths == 1] = np.nan
        return vectors


def test_a_model_that_finds_nothing_is_not_swapped_in(edge: Store) -> None:
    """Unless that is allowed; the old model's being away is no reason."""
    garbled = Garbled(256, salt="garbled")
    with pytest.raises(MigrationError, match=r"of 30 passages, .* where 30 were found before"):
        reembed(edge, garbled)
    assert "things__0001" == edge.aliases()["things"]
    reembed(edge, garbled, allow_worse=True)
    assert "things__0002" == edge.aliases()["things"]


def test_the_old_model_may_be_gone(edge: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Then the new one alone is asked."""

    def gone(card: EncoderCard) -> CostlessEncoder:
        raise ModelNotFoundError(f"no {card.model}")

    report = reembed_collection(edge, "things", encoder=V3, load_old=gone)
    assert report.comparison is not None
    assert (None, 30, None) == (
        report.comparison.found_before,
        report.comparison.found_after,
        report.comparison.overlap,
    )
    assert "the old model is not asked for comparison: no costless-256v2" in caplog.text


def test_passages_without_a_vector_are_told(store: Store) -> None:
    """And left out only if that is allowed."""
    ingest_passages([Passage("one", "alone")], store, collection="things", encoder=V2)
    wordless = Wordless(256, salt="wordless")
    with pytest.raises(MigrationError, match="gives 1 passages no vector, such as 'one'"):
        reembed(store, wordless)
    assert "things__0001" == store.aliases()["things"]
    report = reembed(store, wordless, allow_rejects=True)
    assert (30, ("one",)) == (report.passages, report.without_vector)
    check_holds(store, passages(), wordless)


def test_another_model_than_was_begun_with_is_refused(edge: Store) -> None:
    """Before the swap and after it; `prune` gives up what was not swapped."""
    with pytest.raises(InterruptionError):
        reembed(edge, on_progress=at("index", interrupt))
    with pytest.raises(UsageError, match=r"is being re-embedded with costless-256v3 .*or give it"):
        reembed(edge, SMALL)
    with pytest.raises(MigrationError, match="there is nothing to go back to: 'things' still"):
        rollback(edge)
    assert ("things__0002",) == prune_collection(edge, "things", dry_run=True)
    assert ("things__0002",) == prune_collection(edge, "things")
    assert () == prune_collection(edge, "things")
    with pytest.raises(InterruptionError):
        reembed(edge, SMALL, on_progress=at("last pass", interrupt))
    with pytest.raises(UsageError, match=r"finish it with --model costless-128small$"):
        reembed(edge, V3)
    with pytest.raises(MigrationError, match="nothing was removed: the re-embedding of 'things'"):
        prune_collection(edge, "things")
    reembed(edge, SMALL)
    check_holds(edge, passages(), SMALL)


def test_arguments_that_cannot_mean_anything(edge: Store) -> None:
    """Each is told, and nothing is begun."""
    with pytest.raises(UsageError, match="pass a model or an encoder"):
        reembed_collection(edge, "things")
    with pytest.raises(UsageError, match="pass a model or an encoder"):
        reembed_collection(edge, "things", model="a", encoder=V3)
    with pytest.raises(UsageError, match="pass a model or an encoder"):
        rollback_collection(edge, "things", model="a", encoder=V3)
    with pytest.raises(CollectionNotFoundError, match="no collection 'thing' in"):
        reembed_collection(edge, "thing", model="no-such-model")
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        reembed_collection(edge, "things", model="no-such-model")
    with pytest.raises(MigrationError, match="there is nothing to go back to"):
        rollback(edge)
    assert {"things": "things__0001"} == dict(edge.aliases())


def test_pending_migrations_come_first(edge: Store) -> None:
    """A new collection has had them all: the ledger could not tell the difference."""
    metadata = edge.metadata("things")
    edge.put_metadata("things", replace(metadata, migrations=()))
    pending = r"has migrations pending \(0001_create_passages, 0002_payload_indexes\)"
    with pytest.raises(MigrationError, match=pending):
        reembed(edge)


def test_no_migration_while_it_is_unfinished(edge: Store, tmp_path: Path) -> None:
    """It would change one collection of the two; what is not pending is no matter."""
    with pytest.raises(InterruptionError):
        reembed(edge, on_progress=at("index", interrupt))
    assert [] == migrate_collection(edge, "things")
    folder = tmp_path / "changes"
    folder.mkdir()
    (folder / "0001_graph.py").write_text(
        "from msmarco_qdrant.operations import SetHnsw\n"
        "DESCRIPTION = 'denser'\nOPERATION = SetHnsw(m=24)\n"
    )
    with pytest.raises(MigrationError, match="with costless-256v3 is not finished"):
        migrate_collection(edge, "things", directory=folder)
    status = migration_status(edge, "things")
    assert ("costless-256v2", "things__0002") == (status.model, status.others[0].physical)
    assert status.copying is not None
    assert ("things__0001", "things__0002", False) == (
        status.copying.source,
        status.copying.target,
        status.copying.is_swapped,
    )


def test_one_at_a_time(store: Store) -> None:
    """Whoever has the lock is told; one whose lock is taken away does not swap."""
    locks = migration_locks(store)
    with held(locks, "things"), pytest.raises(StoreInUseError, match="is being migrated by"):
        reembed(store)

    def steal() -> None:
        holder = locks.holder("things")
        assert holder is not None
        locks.release("things", holder.token)

    with pytest.raises(StoreInUseError, match="the lock of 'things' was taken away"):
        reembed(store, on_progress=at("swap", steal))
    assert "things__0001" == store.aliases()["things"]
    reembed(store)
    check_holds(store, passages(), V3)


def test_what_something_else_removes_is_noticed(
    edge: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the new collection is compared, a passage of it is gone: it is never led to."""
    monkeypatch.setattr(_reembedding, "_VERIFIED_TIMES", 2)

    def remove(progress: ReembedProgress) -> None:
        if progress.stage == "verify" and progress.done:
            edge.collection("things__0002").delete([point_id("1")], up_to_seq=2**62)

    with pytest.raises(MigrationError, match=r"does not hold what things__0001 holds \(1 pass"):
        reembed(edge, on_progress=remove)
    assert "things__0001" == edge.aliases()["things"]
    reembed(edge)
    check_holds(edge, passages(), V3)


# ---- the way back --------------------------------------------------------------------------


def test_the_way_back_keeps_what_was_written_since(store: Store) -> None:
    """And deleted; then there is nothing before it, but the other one can be gone to again."""
    reembed(store)
    changed = [replace(passages()[1], text="since then"), Passage("new", "a new one")]
    ingest_passages(changed, store, collection="things", encoder=V3)
    delete_passages(store, ["4"], collection="things")
    kept = [*(one for one in passages() if one.pid not in ("1", "4")), *changed]
    encoded = V2.encoded
    report = rollback(store)
    assert ("things__0002", "things__0001", 2) == (report.old, report.new, report.copied)
    assert 2 == V2.encoded - encoded
    check_holds(store, kept, V2)
    with pytest.raises(MigrationError, match=r"beside it is things__0002 \(costless-256v3\)"):
        rollback(store)
    forth = reembed(store)
    assert ("things__0002", 0, 3) == (forth.new, forth.copied, store.metadata("things").swaps)
    check_holds(store, kept, V3)
    assert "things__0001" == store.metadata("things").previous
    assert ("things__0001",) == prune_collection(store, "things")
    with pytest.raises(MigrationError, match=r"'things' leads to things__0002$"):
        rollback(store)


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_way_back_goes_on(store: Store, stage: ReembedStage) -> None:
    """With what is written meanwhile; and it never turns round once more."""
    reembed(store)
    with pytest.raises(InterruptionError):
        rollback(store, on_progress=at(stage, interrupt))
    live = store.metadata("things").encoder
    ingest_passages([Passage("new", "new")], store, collection="things", encoder=LOADED[live])
    rollback(store)
    check_holds(store, [*passages(), Passage("new", "new")], V2)
    assert (None, None) == (
        store.metadata("things").previous,
        store.metadata("things").copied_from,
    )


def test_the_way_back_of_an_unfinished_re_embedding_finishes_it_first(edge: Store) -> None:
    """After the swap the old collection alone may hold a passage."""
    with pytest.raises(InterruptionError):
        reembed(edge, on_progress=at("last pass", interrupt))
    report = rollback(edge, V3)
    assert ("things__0001", "things__0002") == (report.old, report.new)
    rollback(edge)
    check_holds(edge, passages(), V2)


def test_the_way_back_wants_the_model_of_before(edge: Store) -> None:
    """Another one is refused, and nothing is begun."""
    reembed(edge)
    with pytest.raises(ModelMismatchError, match="costless-128small"):
        rollback(edge, SMALL)
    assert edge.metadata("things__0001").copied_from is None


def test_a_source_that_was_removed_by_hand(edge: Store) -> None:
    """There is nothing to be copied any more; `prune` forgets it."""
    with pytest.raises(InterruptionError):
        reembed(edge, on_progress=at("last pass", interrupt))
    edge.drop_collection("things__0001")
    assert migration_status(edge, "things").copying is None
    assert () == prune_collection(edge, "things")
    metadata = edge.metadata("things")
    assert (None, None) == (metadata.copied_from, metadata.previous)
    reembed(edge, SMALL)
    check_holds(edge, passages(), SMALL)


def test_dropping_removes_them_all(store: Store) -> None:
    """Nothing of the name is left."""
    from msmarco_qdrant.creation import drop_collection
    from msmarco_qdrant.stores.generations import physical_collections

    reembed(store)
    assert 30 == drop_collection(store, "things")
    assert [] == [*physical_collections(store, "things")]


# ---- settings and sources ------------------------------------------------------------------


def test_settings_are_kept(tmp_path: Path) -> None:
    """Those that migrations have changed since, thresholds, indexes and BM25 among them."""
    with new_store("edge", tmp_path) as store:
        ingest_passages(
            passages(),
            store,
            collection="things",
            encoder=V2,
            bm25=Bm25Settings(avg_len=3.0),
            payload_indexes={"n": "integer"},
        )
        changed = alterable(store, "things")
        changed.alter(
            SettingsChange(m=24, quantisation="turbo4", on_disk=False, indexing_threshold_kb=123)
        )
        changed.create_payload_index("meta.kind", "keyword")
        metadata = store.metadata("things")
        ledger = (*metadata.migrations, "0001_of_mine")
        store.put_metadata("things", replace(metadata, migrations=ledger))
        old = store.collection("things").info().spec
        reembed(store, SMALL)
        new = store.collection("things").info().spec
        assert replace(old, dense=new.dense, dimension=128) == new
        assert HnswSettings(24, 256) == new.hnsw
        assert 123 == alterable(store, "things").optimizers().indexing_threshold_kb
        assert (ledger, 3.0) == (
            store.metadata("things").migrations,
            store.metadata("things").bm25.avg_len,
        )


def test_other_bm25_settings_since_the_way_back(edge: Store) -> None:
    """What is beside it would keep words of the old ones."""
    reembed(edge)
    rollback(edge)
    metadata = edge.metadata("things")
    edge.put_metadata("things", replace(metadata, bm25=Bm25Settings(avg_len=5.0)))
    with pytest.raises(UsageError, match="BM25 vectors of other settings"):
        reembed(edge)


def test_texts_from_a_source(store: Store) -> None:
    """As far as they are those of the collection; the rest is read from it."""
    source = [
        *passages(20),
        replace(passages()[25], text="not this text"),
        Passage("unknown", "not in the collection"),
    ]
    report = reembed(store, source=source)
    assert 30 == report.copied
    check_holds(store, passages(), V3)


def test_texts_from_files(edge: Store, tmp_path: Path) -> None:
    """As the command has them."""
    path = tmp_path / "things.tsv"
    path.write_text("".join(f"{one.pid}\t{one.text}\n" for one in passages()))
    assert 30 == reembed(edge, source=[path]).copied
    check_holds(edge, passages(), V3)


def test_a_deletion_reaches_what_is_being_filled(edge: Store) -> None:
    """So no pass has to look for it."""
    with pytest.raises(InterruptionError):
        reembed(edge, on_progress=at("index", interrupt))
    delete_everywhere(edge, "things", [point_id("1")], up_to_seq=2**62)
    assert {} == edge.collection("things__0002").retrieve([point_id("1")], ("pid",))
    assert 0 == reembed(edge).removed
    assert [] == [*get_passages(edge, ["1"], collection="things")]


def test_a_name_is_logged_when_it_is_led_elsewhere(
    edge: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """For whoever looks for the moment."""
    caplog.set_level(logging.INFO, "msmarco_qdrant")
    reembed(edge)
    assert "'things' leads to things__0002 now" in caplog.text


def test_a_model_that_gives_no_vectors_is_not_tried_on_everything(edge: Store) -> None:
    """It is refused after some thousand passages, not when all have been through it."""
    many = [Passage(f"a{number}", "alone") for number in range(9000)]
    ingest_passages(many, edge, collection="things", encoder=V2, optimize=False)
    seen: list[int] = []
    with pytest.raises(MigrationError, match=r"gives 1,\d\d\d passages no vector, such as 'a"):
        reembed(
            edge,
            Wordless(256, salt="wordless"),
            on_progress=lambda progress: seen.append(progress.done),
        )
    assert 9030 > max(seen)
