"""Ingest by many processes on several machines, by Ray.

The names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from msmarco_qdrant.distributed.ingest import ingest_dataset

_MODULES = {"ingest": "ingest_dataset"}

__all__ = ["ingest_dataset"]


__getattr__ = lazy_attributes(__name__, _MODULES)
