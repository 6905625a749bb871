"""Passages in the graph of a collection, and the advice if most are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from msmarco_qdrant.collection import graph
from msmarco_qdrant.collection.bulk import BulkMode
from msmarco_qdrant.collection.check import check_collection
from msmarco_qdrant.collection.create import create_collection
from msmarco_qdrant.collection.graph import graph_note
from msmarco_qdrant.collection.optimize import optimize_collection
from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.collection_types import Bm25Settings, SettingsChange
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from tests.cli.runner import command
from tests.engines import new_store

if TYPE_CHECKING:
    from msmarco_qdrant.stores import Store
    from msmarco_qdrant.testing import HashingEncoder

NAME = "msmarco"


def note(store: Store, **state: Any) -> str | None:
    """The note about a collection of this name in another state than it has."""
    info = replace(store.collection(NAME).info(), **state)
    found = graph_note(store, NAME, info)
    if found is not None:
        missing = info.points - info.in_graph
        assert f"{missing:,} of the {info.points:,} passages of '{NAME}'" in found
        assert "`msmarco-qdrant optimize --" in found
    return found


@pytest.mark.parametrize(
    ("points", "indexed", "in_graph", "noted"),
    [
        (94_566, 94_566, 0, True),  # each sparse vector, and no dense one
        (94_566, 189_132, 94_566, False),
        (94_566, 140_000, 45_434, True),
        (94_566, 160_000, 65_434, False),
        (94_566, 240_000, 94_566, False),  # Edge counts vectors that were replaced
        (94_566, 0, 0, True),
        (30_000, 30_000, 0, False),  # less than 10 MB of 64 dimensions: the engine scans them
        (9_000, 9_000, 0, False),
        (0, 0, 0, False),
    ],
)
def test_a_large_collection_without_a_graph_is_noted(
    store: Store, encoder: HashingEncoder, points: int, indexed: int, in_graph: int, noted: bool
) -> None:
    """With the command that builds it, on the engine that builds one when it is called to."""
    create_collection(store, NAME, encoder.info, Bm25Settings())
    found = note(store, points=points, indexed=indexed)
    info = replace(store.collection(NAME).info(), points=points, indexed=indexed)
    assert in_graph == info.in_graph
    builds = store.capabilities.ann and not store.capabilities.multi_process
    assert (noted and builds) == (found is not None)


def test_a_server_is_left_alone_unless_it_is_held_up(
    tmp_path: Path, encoder: HashingEncoder
) -> None:
    """One that is ready has what its thresholds ask for: `optimize` would build nothing more."""
    with new_store("loopback", tmp_path) as store:
        create_collection(store, NAME, encoder.info, Bm25Settings())
        assert note(store, points=94_566, state="ready") is None
        assert note(store, points=94_566, state="paused") is not None
        BulkMode(store, NAME).begin()
        assert note(store, points=94_566, state="ready") is not None


@pytest.mark.parametrize(
    ("threshold_kb", "noted"), [(7_500, True), (7_501, False), (0, False)], ids=str
)
def test_the_threshold_of_the_collection_decides(
    tmp_path: Path, encoder: HashingEncoder, threshold_kb: int, noted: bool
) -> None:
    """Of 30,000 vectors with 256 bytes; with 0 the engine builds none."""
    with new_store("edge", tmp_path) as store:
        create_collection(store, NAME, encoder.info, Bm25Settings())
        change = SettingsChange(indexing_threshold_kb=threshold_kb)
        store.admin_collection(NAME).alter(change)
        assert noted == (note(store, points=30_000) is not None)


def test_passages_deleted_before_any_build_are_in_no_graph(
    tmp_path: Path, encoder: HashingEncoder
) -> None:
    """Edge counts their sparse vectors on; in a graph are those that a build found."""
    with new_store("edge", tmp_path) as store:
        passages = [Passage(str(pid), f"passage {pid}") for pid in range(60)]
        ingest_passages(passages, store, encoder=encoder, optimize=False)
        delete_passages(store, [passage.pid for passage in passages[20:]])
        info = store.collection(NAME).info()
        assert (20, 20, 0) == (info.points, info.indexed, info.in_graph)

        store.admin_collection(NAME).alter(SettingsChange(indexing_threshold_kb=1))
        info = optimize_collection(store)
        assert (20, 40, 20) == (info.points, info.indexed, info.in_graph)
        delete_passages(store, ["3"])
        info = store.collection(NAME).info()
        assert (19, 19) == (info.points, info.in_graph)


def test_check_and_info_show_the_note(
    tmp_path: Path, encoder: HashingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As advice: a check that finds nothing else ends with 0."""
    monkeypatch.setattr(graph, "_FEW_POINTS", 9)
    monkeypatch.setattr(graph, "DEFAULT_THRESHOLD_KB", 1)
    with new_store("edge", tmp_path) as store:
        passages = [Passage(str(pid), f"passage {pid}") for pid in range(9)]
        ingest_passages(passages, store, encoder=encoder, optimize=False)
        expected = note(store)
        report = check_collection(store, NAME)
        assert (expected, True) == (report.graph_note, report.is_sound)
        assert str(report).endswith(f"no fault found\n{expected}")
        place = store.dsn
    status, shown, _ = command("check", NAME, "--store", place)
    assert (0, f"advice: {expected}") == (status, shown.splitlines()[-1])
    status, shown, _ = command("info", "--store", place)
    assert f"advice      {expected}" in shown.splitlines()
    (found,) = json.loads(command("info", "--store", place, "--json").out)["collections"]
    assert (expected, 0) == (found["graph_note"], found["info"]["in_graph"])
