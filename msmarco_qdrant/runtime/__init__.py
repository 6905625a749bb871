"""Concurrency and file primitives without knowledge of passages."""
