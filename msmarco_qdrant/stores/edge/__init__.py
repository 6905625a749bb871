"""Qdrant Edge, the engine in the process, as a store."""

import msmarco_qdrant.runtime.file_lock  # noqa: F401  # first: it explains missing locks
