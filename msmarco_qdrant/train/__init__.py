"""Hard negatives and training: mine candidates, judge them, choose negatives, train, improve.

The names are imported on first use: mining loads no trainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from msmarco_qdrant.train.records import MinedQuery, Positives

_MODULES = {
    "records": "MinedQuery Positives",
}

__all__ = ["MinedQuery", "Positives"]


__getattr__ = lazy_attributes(__name__, _MODULES)
