"""Dependencies of the HTTP app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens
from msmarco_qdrant.service.interfaces import About, Ingester, Readiness, Searcher
from msmarco_qdrant.service.metrics import Metrics


@dataclass(frozen=True, slots=True)
class AppDependencies:
    """Parts that the app uses; their maker closes them.

    Attributes:
        ingester: The spool and its worker.
        searcher: Returns the search client, None before it exists.
        readiness: The checks of `/readyz`.
        metrics: The counters.
        tokens: The bearer tokens.
        limits: Bounds of requests.
        origins: Sites whose pages may use this API in a browser; "*" for all.
        collections: Collections that searches may name, besides the sidecar's own.
        about: Returns, from memory, what is searched; None while the model loads.
    """

    ingester: Ingester
    searcher: Callable[[], Searcher | None]
    readiness: Readiness
    metrics: Metrics
    tokens: Tokens = field(default_factory=Tokens)
    limits: Limits = field(default_factory=Limits)
    origins: Sequence[str] = ()
    collections: Sequence[str] = ()
    about: Callable[[], About | None] = lambda: None
