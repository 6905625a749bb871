"""Dependencies of the HTTP app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens
from msmarco_qdrant.service.interfaces import About, Ingester, Readiness, Searcher
from msmarco_qdrant.service.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


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


class MountedApp(Protocol):
    """An app of another protocol, inside of the sidecar's, at a path of its own.

    It checks tokens itself.
    """

    @property
    def path(self) -> str:
        """The path."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Return the context in which it answers requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
