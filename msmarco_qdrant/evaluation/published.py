"""Published figures of a model, in the unit of measured values."""

from __future__ import annotations

from msmarco_qdrant.encoding.catalog import find_published
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.records import Published

DL19 = ("nDCG@10", "TREC DL 2019, reranking the given 1,000")
DL20 = ("nDCG@10", "TREC DL 2020, reranking the given 1,000")
DEV = ("RR@10", "MS MARCO dev, 6,980 queries")
COLUMNS = (DL19, DL20, DEV)
"""Measure and protocol of the figures that a table may show, in this order."""


def published_figures(model: str) -> tuple[Published, ...]:
    """Return the catalog's quality figures of a model or baseline, between 0 and 1.

    The catalog has the percents of the publication. Compare them with a measured value only if
    candidates and queries are the same.

    Raises:
        UsageError: For a name that is not in the catalog.
    """
    entry = find_published(model)
    if entry is None:
        raise UsageError(f"model {model!r} is not in the catalog: see `msmarco-qdrant models`")
    figures = (entry.ndcg10_dl19, entry.ndcg10_dl20, entry.mrr10_dev)
    return tuple(
        Published(*column, round(figure.value / 100, 4), figure.source)
        for column, figure in zip(COLUMNS, figures, strict=True)
        if figure is not None
    )
