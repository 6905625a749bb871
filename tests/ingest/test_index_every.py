"""Index builds during an ingest into a directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.reports import IngestProgress
from msmarco_qdrant.errors import UnsupportedError, UsageError
from msmarco_qdrant.ingest import options
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.edge.collection import EdgeCollection
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import new_store


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The passages that each build finds."""
    found: list[int] = []
    build = EdgeCollection.optimize

    def counted(self: EdgeCollection, **options: Any) -> None:
        found.append(self.info().points)
        build(self, **options)

    monkeypatch.setattr(EdgeCollection, "optimize", counted)
    return found


def passages(start: int, stop: int) -> Iterator[Passage]:
    """Passages with ids of a range."""
    for number in range(start, stop):
        yield Passage(str(number), f"passage {number}")


def ingest(source: Any, store: Any, **options: Any) -> Any:
    """Ingest in windows of 10, with builds after 20 passages."""
    return ingest_passages(
        source, store, encoder=HashingEncoder(), window=10, index_every=20, **options
    )


def test_a_build_follows_each_so_many_written_passages(tmp_path: Path, builds: list[int]) -> None:
    """Unchanged passages do not count; the last build is that of the end."""
    report = ingest(passages(0, 50), tmp_path)
    assert [20, 40, 50] == builds
    assert "index" in {stage.name for stage in report.stages}
    ingest(passages(0, 55), tmp_path)
    assert [20, 40, 50, 55] == builds


def test_an_interrupted_ingest_keeps_its_builds(tmp_path: Path, builds: list[int]) -> None:
    """The next one goes on after them."""

    def stop(progress: IngestProgress) -> None:
        if progress.report.written >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(passages(0, 90), tmp_path, on_progress=stop)
    assert [20, 40] == builds
    ingest(passages(0, 90), tmp_path)
    assert [20, 40, 60, 80, 90] == builds
    with open_store(tmp_path) as store:
        assert 90 == store.collection("msmarco").info().points


def test_a_large_directory_is_built_in_pieces(
    tmp_path: Path, builds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the option after each million, or so many; never without the index."""
    monkeypatch.setattr(options, "INDEX_PIECE", 30)
    given: dict[str, Any] = {"encoder": HashingEncoder(), "window": 10}
    ingest_passages(passages(0, 70), tmp_path / "one", optimize=False, **given)
    assert [] == builds
    ingest_passages(passages(0, 70), tmp_path / "two", **given)
    assert [30, 60, 70] == builds
    with pytest.raises(UsageError, match="index_every needs the index at the end"):
        ingest(passages(0, 70), tmp_path / "two", optimize=False)


@pytest.mark.parametrize("every", [0, -1, 2.5, "9"])
def test_another_number_is_refused(tmp_path: Path, every: Any) -> None:
    """Before anything is created."""
    with pytest.raises(UsageError, match="index_every must be 1 or more"):
        ingest_passages([], tmp_path / "new", encoder=HashingEncoder(), index_every=every)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("engine", ["loopback", "memory"])
def test_other_engines_refuse_it(engine: str, tmp_path: Path) -> None:
    """A server builds its index itself."""
    with new_store(engine, tmp_path) as store:
        for place in (store, store.dsn):
            with pytest.raises(UnsupportedError, match="index_every needs a directory"):
                ingest(passages(0, 5), place)
        assert {} == store.aliases()
