"""What the fixtures hold: shared by the script that wrote them and the tests that open them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msmarco_qdrant import Bm25Settings, Passage
from msmarco_qdrant.testing import HashingEncoder

FIXTURES = Path(__file__).parent / "fixtures"
CHECKSUMS = "SHA256SUMS"

PASSAGES: Sequence[Passage] = (
    Passage("1", "Ferries cross the harbor every twenty minutes.", {"year": 1998, "lang": "en"}),
    Passage("2", "Green tea is steeped in water below boiling.", {"year": 2004, "lang": "en"}),
    Passage("3", "Glaciers carve wide valleys into the rock.", {"year": 2011, "lang": "en"}),
    Passage("007", "A kestrel hovers over the field to find mice.", {"tags": ["bird", "raptor"]}),
    Passage("b6c0e8a2-0d7e-4f43-b4d2-7d2f1a8f1d2c", "Der Zug nach Köln fährt stündlich."),
    Passage("18446744073709551616", "Sourdough needs flour, water, salt and time.", {"year": 2004}),
    Passage("x/y z", "Copper roofs turn green after some decades.", {"deep": {"list": [1, None]}}),
    Passage("8", "Chess clocks count down for both players.", {"live": True, "score": 0.5}),
)

ENCODER = HashingEncoder(64)
OTHER = HashingEncoder(64, salt="other")
"""The model that a collection was re-embedded with."""

SHORT_TEXTS = Bm25Settings(k=1.2, b=0.75, avg_len=7.0)
"""What a user's migration has set."""

LOCK_TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105  # it opens nothing
LOCK_HOST, LOCK_PID, LOCK_SINCE = "old-host", 4_194_305, "2025-01-02T03:04:05Z"
"""Who held a lock when it died; no Linux has a process of that number."""

WAITING_TEXTS: Mapping[str, str] = {
    "10": "Written by the batch that was being applied.",
    "11": "Written by the first batch that waited.",
    "12": "Written by the second batch that waited, and once more.",
    "1": "Ferries cross the harbor every ten minutes now.",
}
"""What is new in the store when all that waits in the spool has been applied; 2 is deleted."""

QUERIES: Mapping[str, str] = {one.pid: one.text for one in PASSAGES}
