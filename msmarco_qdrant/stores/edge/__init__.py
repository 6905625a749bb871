"""Qdrant Edge, the engine in the process, as a store."""
