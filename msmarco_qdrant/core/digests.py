"""Digests by which an ingest finds unchanged passages; stored in payloads, so never change them."""

from __future__ import annotations

import hashlib
import json

from msmarco_qdrant.core.records import Meta


def text_digest(text: str) -> str:
    """Digest of the encoded text: equal digests need no second encoding."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def meta_digest(meta: Meta) -> str:
    """Digest of the user's fields, independent of their order."""
    canonical = json.dumps(meta, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
