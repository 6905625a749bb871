"""Tasks of MTEB and BEIR through a collection in Qdrant."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes
from msmarco_qdrant.integrations.extras import imports_of

if TYPE_CHECKING:
    from msmarco_qdrant.integrations.mteb.models import MsmarcoEncoder, MsmarcoSearch
    from msmarco_qdrant.integrations.mteb.tasks import local_task

with imports_of("mteb", "the MTEB integration", "mteb"):
    import_module("mteb")  # every module of this package needs it

_MODULES = {"models": "MsmarcoEncoder MsmarcoSearch", "tasks": "local_task"}

__all__ = ["MsmarcoEncoder", "MsmarcoSearch", "local_task"]


__getattr__ = lazy_attributes(__name__, _MODULES)
