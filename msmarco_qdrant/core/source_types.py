"""Names of the formats of sources."""

from __future__ import annotations

from typing import Literal, TypeAlias

Format: TypeAlias = Literal["auto", "tsv", "csv", "jsonl", "parquet", "arrow"]
"""A format of passages or queries; "auto" is the one that the content has."""
