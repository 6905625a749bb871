"""Spool: a directory of accepted batches that survives a crash."""
