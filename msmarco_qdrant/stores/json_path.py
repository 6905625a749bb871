"""Names of payload fields as Qdrant's JSON paths."""

from __future__ import annotations

import re

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+(\[[0-9]*\])*", re.ASCII)


def json_path(field: str) -> str:
    """A field as a JSON path: dots nest, and a name that is no plain word is quoted."""
    parts = field.split(".")
    return ".".join(part if _PLAIN_NAME.fullmatch(part) else f'"{part}"' for part in parts)
