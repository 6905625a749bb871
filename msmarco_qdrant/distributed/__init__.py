"""Ingest by many processes on several machines."""
