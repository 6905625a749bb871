"""Passages from a source into Parquet files of vectors."""
