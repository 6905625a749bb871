"""Encode, ingest, change of the model, mining and judging by many processes, on Ray.

The names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from msmarco_qdrant.distributed.encode import encode_dataset
    from msmarco_qdrant.distributed.ingest import ingest_dataset
    from msmarco_qdrant.distributed.judge import judge_on_ray
    from msmarco_qdrant.distributed.mine import mine_on_ray
    from msmarco_qdrant.distributed.reembed import reembed_on_ray

_MODULES = {
    "encode": "encode_dataset",
    "ingest": "ingest_dataset",
    "judge": "judge_on_ray",
    "mine": "mine_on_ray",
    "reembed": "reembed_on_ray",
}

__all__ = ["encode_dataset", "ingest_dataset", "judge_on_ray", "mine_on_ray", "reembed_on_ray"]


__getattr__ = lazy_attributes(__name__, _MODULES)
