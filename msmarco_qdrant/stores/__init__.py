"""Where passages are kept: one behaviour, whichever engine is behind it."""

from __future__ import annotations

from msmarco_qdrant.stores.opening import open_store
from msmarco_qdrant.stores.protocols import Capabilities, Collection, Store

__all__ = ["Capabilities", "Collection", "Store", "open_store"]
