"""Conversions of batches, specs and queries that the adapters of all engines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from msmarco_qdrant.core.collection_types import CollectionSpec, PointBatch, SettingsChange
from msmarco_qdrant.core.search_types import PointQuery, SearchEffort


def split_by_presence(
    batch: PointBatch, seen: Sequence[int | None]
) -> tuple[PointBatch, Sequence[int], PointBatch]:
    """Split a batch for `upsert_if_seq`.

    Returns:
        The points that existed, the `seq` of each, and the points that did not exist.
    """
    pairs = enumerate(zip(batch.ids, seen, strict=True))
    existing = {row: seq for row, (_, seq) in pairs if seq is not None}
    absent = [row for row, _ in enumerate(batch.ids) if row not in existing]
    return select_rows(batch, list(existing)), list(existing.values()), select_rows(batch, absent)


def select_rows(batch: PointBatch, rows: Sequence[int]) -> PointBatch:
    """Return some points of a batch; `rows` are in ascending order."""
    if len(rows) == len(batch.ids):
        return batch
    return PointBatch(
        using=batch.using,
        ids=[batch.ids[row] for row in rows],
        dense=batch.dense[list(rows)],
        sparse=[batch.sparse[row] for row in rows],
        payloads=[batch.payloads[row] for row in rows],
    )


def apply_change(spec: CollectionSpec, change: SettingsChange) -> CollectionSpec:
    """Return the spec of a collection after a change, except for its thresholds."""
    hnsw = {"m": change.m, "ef_construct": change.ef_construct}
    storage = {"on_disk": change.on_disk, "quantization": change.quantization}
    return replace(
        spec,
        hnsw=replace(spec.hnsw, **only_given(hnsw)),
        storage=replace(spec.storage, **only_given(storage)),
    )


def search_params(library: Any, effort: SearchEffort) -> Any:
    """Return the `SearchParams` of qdrant-client or Qdrant Edge, which have the same fields."""
    return library.SearchParams(
        hnsw_ef=effort.ef,
        exact=effort.exact,
        quantization=library.QuantizationSearchParams(
            ignore=effort.exact or not effort.quantized,
            rescore=effort.rescore,
            oversampling=effort.oversampling,
        ),
    )


def final_effort(query: PointQuery) -> SearchEffort:
    """Return the effort of a query after its candidates, which are few: they are all scored."""
    return SearchEffort(exact=True) if query.candidates else query.effort


def only_given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
