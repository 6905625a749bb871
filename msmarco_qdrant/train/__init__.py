"""Hard negatives and training: mine candidates, judge them, choose negatives, train, improve.

The names are imported on first use: mining loads no trainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from msmarco_qdrant.train.negatives_file import read_negatives, write_negatives
    from msmarco_qdrant.train.positives import read_clicks, read_positives
    from msmarco_qdrant.train.records import MinedQuery, Positives

_MODULES = {
    "negatives_file": "read_negatives write_negatives",
    "positives": "read_clicks read_positives",
    "records": "MinedQuery Positives",
}

__all__ = [
    "MinedQuery",
    "Positives",
    "read_clicks",
    "read_negatives",
    "read_positives",
    "write_negatives",
]


__getattr__ = lazy_attributes(__name__, _MODULES)
