"""Removing what the source no longer holds, and nothing else."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.core.records import Passage, PrunePolicy, Reject
from msmarco_qdrant.core.reports import IngestReport
from msmarco_qdrant.errors import IngestStoppedError, PruneRefusedError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import another_handle, each_engine, new_store

EVERYTHING = PrunePolicy(max_share=1)


def numbered(*numbers: int) -> list[Passage]:
    """A passage for each number."""
    return [Passage(str(number), f"text {number}") for number in numbers]


def ingest(
    source: Iterable[Passage | Reject] | Path, store: Store, prune: PrunePolicy | None = None
) -> IngestReport:
    """Bring passages in, and remove the others if the policy says so."""
    return ingest_passages(source, store, encoder=HashingEncoder(), prune=prune, optimize=False)


def held(store: Store) -> dict[str, str]:
    """Every passage of the collection: its text by its pid."""
    points = store.collection("msmarco").scan(["pid", "text"])
    return {payload["pid"]: payload["text"] for _, payload in points}


def of(passages: Iterable[Passage]) -> dict[str, str]:
    """The same of passages."""
    return {passage.pid: passage.text for passage in passages}


# ---- what goes -----------------------------------------------------------------------------


@each_engine
def test_what_the_source_lacks_is_removed(store: Store) -> None:
    """That alone: new, changed and unchanged passages stay; the report counts it."""
    ingest([*numbered(*range(10)), Passage("007", "spy")], store)
    new = [Passage("2", "changed"), Passage("10", "ten")]
    source = [*new, *numbered(*range(3, 10)), Passage("007", "spy")]

    report = ingest(source, store, PrunePolicy())

    assert of(source) == held(store)
    assert (10, 2, 8, 2) == (report.read, report.written, report.unchanged, report.pruned)


def test_nothing_is_removed_without_a_policy_or_a_reason(store: Store) -> None:
    """The first run with a policy removes nothing, nor does a run without one."""
    assert 0 == ingest(numbered(1, 2, 3), store, PrunePolicy()).pruned
    assert 0 == ingest(numbered(1), store).pruned
    assert {"1", "2", "3"} == held(store).keys()


@pytest.mark.slow
@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_source_that_is_cut_off_removes_nothing(
    store: Store, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    """Also with `allow_rejects`: the rows after the cut were never read."""
    lines = "".join(f"{number}\ttext {number}\n" for number in range(2000)).encode()
    (tmp_path / "whole.tsv").write_bytes(lines)
    packed = compress(lines)
    (tmp_path / "cut.tsv").write_bytes(packed[: len(packed) // 2])
    assert 2000 == ingest(tmp_path / "whole.tsv", store).written
    policy = PrunePolicy(max_share=1, allow_rejects=True)
    with pytest.raises(PruneRefusedError, match=r"the source must be whole.* ends early"):
        ingest(tmp_path / "cut.tsv", store, policy)
    assert 2000 == len(held(store))


@pytest.mark.parametrize("store", ["edge"], indirect=True)
def test_more_than_a_batch_is_removed(store: Store) -> None:
    """The scan continues while its results are removed."""
    ingest(numbered(*range(1500)), store)

    report = ingest(numbered(*range(0, 1500, 5)), store, EVERYTHING)

    assert {str(number) for number in range(0, 1500, 5)} == held(store).keys()
    assert 1200 == report.pruned


def test_what_was_removed_stays_removed(tmp_path: Path) -> None:
    """After the store was closed and opened again."""
    with new_store("edge", tmp_path) as store:
        ingest(numbered(*range(10)), store)
        ingest(numbered(*range(8)), store, PrunePolicy())
    with new_store("edge", tmp_path) as store:
        assert of(numbered(*range(8))) == held(store)


@pytest.fixture(scope="module")
def lasting_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store for many examples."""
    with new_store("memory", tmp_path_factory.mktemp("lasting")) as opened:
        yield opened


pid_sets = st.sets(st.sampled_from(["1", "2", "3", "007", "a", "b", str(2**64), "-7"]))


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True)
@given(runs=st.lists(pid_sets, min_size=1, max_size=4), window=st.integers(1, 9))
def test_any_sequence_of_runs_ends_in_the_last_source(
    lasting_store: Store, runs: list[set[str]], window: int
) -> None:
    """Whatever was there before; an empty source alone leaves all as it was."""
    expected: set[str] = set()
    try:
        for run in runs:
            rows = [Passage(pid, f"text {pid}") for pid in sorted(run)]
            try:
                report = ingest_passages(
                    rows,
                    lasting_store,
                    encoder=HashingEncoder(),
                    prune=EVERYTHING,
                    window=window,
                    optimize=False,
                )
            except PruneRefusedError:
                assert set() == run
                continue
            assert len(expected - run) == report.pruned
            expected = run
        assert expected == held(lasting_store).keys()
    finally:
        drop_collection(lasting_store, "msmarco")


# ---- what is refused -----------------------------------------------------------------------


@each_engine
def test_more_than_a_fifth_may_not(store: Store) -> None:
    """Nothing is removed then; all of the source went in; the error tells counts and the way."""
    ingest(numbered(*range(10)), store)

    with pytest.raises(
        PruneRefusedError, match=r"lacks 3 of 11 passages \(27%, at most 20%.*--yes"
    ) as e:
        ingest([*numbered(*range(7)), *numbered(10)], store, PrunePolicy())

    assert of(numbered(*range(11))) == held(store)
    report = e.value.report
    assert (8, 1, 7, 0) == (report.read, report.written, report.unchanged, report.pruned)


def test_the_largest_share_is_the_callers_choice(store: Store) -> None:
    """Half of the passages, at shares around a half; a fifth by default."""
    ingest(numbered(1, 2, 3, 4), store)
    for share in (0.0, 0.49):
        with pytest.raises(PruneRefusedError):
            ingest(numbered(1, 2), store, PrunePolicy(max_share=share))
        assert 4 == len(held(store))

    assert 2 == ingest(numbered(1, 2), store, PrunePolicy(max_share=0.5)).pruned
    ingest(numbered(*range(5)), store)
    assert 1 == ingest(numbered(*range(4)), store, PrunePolicy()).pruned


def test_rejected_rows_forbid_it(store: Store) -> None:
    """One may be a passage that is there; unless the caller takes that."""
    ingest(numbered(*range(10)), store)
    source: list[Passage | Reject] = [*numbered(*range(9))]
    source.append(Reject("x.tsv", 10, "no tab", b"9 text", 6))

    with pytest.raises(
        PruneRefusedError, match=r"rows were rejected \(1\).*allow_rejects=True"
    ) as e:
        ingest(source, store, PrunePolicy())
    assert 10 == len(held(store))
    assert (1, 0) == (e.value.report.rejected, e.value.report.pruned)

    report = ingest(source, store, PrunePolicy(allow_rejects=True))
    assert (1, 1) == (report.rejected, report.pruned)
    assert of(numbered(*range(9))) == held(store)


def test_a_passage_that_is_rejected_late_is_not_taken_for_missing(store: Store) -> None:
    """Its pid stood in the source: what is there of it stays."""
    ingest(numbered(1, 2), store)

    report = ingest(
        [*numbered(1), Passage("2", "!!!")], store, PrunePolicy(max_share=1, allow_rejects=True)
    )

    assert of(numbered(1, 2)) == held(store)
    assert (1, 0) == (report.rejected, report.pruned)


def test_an_empty_source_removes_nothing(store: Store) -> None:
    """It is a mistake, whatever the policy; the error advises to drop the collection."""
    ingest(numbered(1, 2, 3), store)

    with pytest.raises(PruneRefusedError, match=r"the source contains no passage.*drop"):
        ingest([], store, EVERYTHING)

    assert of(numbered(1, 2, 3)) == held(store)


def test_a_part_of_the_source_cannot_prune(tmp_path: Path) -> None:
    """`max_passages` would make the rest look gone; nothing is even created."""
    with pytest.raises(UsageError, match="max_passages"):
        ingest_passages(
            numbered(1, 2),
            tmp_path / "store",
            encoder=HashingEncoder(),
            max_passages=1,
            prune=EVERYTHING,
        )

    assert [] == list(tmp_path.iterdir())


def test_a_source_that_breaks_removes_nothing(store: Store) -> None:
    """What it did not get to is not gone."""
    ingest(numbered(1, 2, 3), store)

    def source() -> Iterator[Passage]:
        yield from numbered(1)
        raise UsageError("torn")

    with pytest.raises(IngestStoppedError, match="torn") as e:
        ingest(source(), store, EVERYTHING)

    assert not isinstance(e.value, PruneRefusedError)
    assert of(numbered(1, 2, 3)) == held(store)


# ---- what others write ---------------------------------------------------------------------


@each_engine
def test_passages_of_another_writer_stay(store: Store) -> None:
    """A new passage and a changed one; an untouched one that the source lacks goes."""
    ingest(numbered(1, 2, 3, 4), store)

    def source() -> Iterator[Passage]:
        yield from numbered(1)
        with another_handle(store) as other:
            ingest([Passage("2", "changed by another"), Passage("9", "new by another")], other)
        yield from numbered(4)

    report = ingest(source(), store, EVERYTHING)

    assert 1 == report.pruned
    assert {
        "1": "text 1",
        "2": "changed by another",
        "4": "text 4",
        "9": "new by another",
    } == held(store)


# ---- how it is told ------------------------------------------------------------------------


def test_it_is_announced_after_the_index(store: Store) -> None:
    """As a stage of its own, the last, when everything is searchable; only where asked for."""
    seen: list[str] = []
    for policy, stages in ((EVERYTHING, ["index", "prune"]), (None, ["index"])):
        seen.clear()
        ingest_passages(
            numbered(1, 2),
            store,
            encoder=HashingEncoder(),
            prune=policy,
            on_progress=lambda progress: seen.append(progress.stage),
        )
        assert stages == [stage for stage in seen if stage != "passages"]
        assert stages == seen[-len(stages) :]
