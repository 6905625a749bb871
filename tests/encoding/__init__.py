"""Tests of `msmarco_qdrant.encoding`."""
