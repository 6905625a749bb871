"""Tests of the distributed ingest."""
