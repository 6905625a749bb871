"""Passages from a source into a collection."""
