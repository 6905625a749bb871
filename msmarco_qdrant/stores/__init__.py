"""Where passages are kept: one behaviour, whichever engine is behind it."""

from __future__ import annotations

from msmarco_qdrant.stores.opening import check_creatable, open_store, without_secret
from msmarco_qdrant.stores.protocols import Capabilities, Collection, Store

__all__ = ["Capabilities", "Collection", "Store", "check_creatable", "open_store", "without_secret"]
