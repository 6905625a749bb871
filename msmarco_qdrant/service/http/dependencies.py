"""What the HTTP app is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from msmarco_qdrant.service.interfaces import About, Ingester, Limits, Readiness, Searcher, Tokens
from msmarco_qdrant.service.metrics import Metrics


@dataclass(frozen=True, slots=True)
class AppDependencies:
    """What the app works with; each stays its maker's to close.

    Attributes:
        ingester: The spool and its worker.
        searcher: What gives the client of searches, None while there is none.
        readiness: What knows whether everything is there.
        metrics: What counts.
        tokens: Who may do what.
        limits: How much a request may bring and ask for.
        page: The folder of the search page.
        about: What tells, from memory, what is searched; None while the model is being loaded.
    """

    ingester: Ingester
    searcher: Callable[[], Searcher | None]
    readiness: Readiness
    metrics: Metrics
    tokens: Tokens = field(default_factory=Tokens)
    limits: Limits = field(default_factory=Limits)
    page: Path = Path(__file__).parent / "page"
    about: Callable[[], About | None] = lambda: None
