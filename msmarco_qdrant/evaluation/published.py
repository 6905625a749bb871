"""What was published of a model, in the unit of the measured values."""

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
    """The catalog's quality figures of a model or baseline, those that exist.

    Args:
        model: A name of the catalog.

    Returns:
        Between 0 and 1 (the catalog holds them in percent, as they were published). They compare
        with a measured value only where candidates and queries are the same.

    Raises:
        UsageError: For a name that the catalog does not hold.
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
