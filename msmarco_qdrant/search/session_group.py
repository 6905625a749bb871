"""Sessions of one client: that of its own collection, and those of others that it searches, too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.encoding import Encoder

if TYPE_CHECKING:
    from msmarco_qdrant.search.session import SearchSession


class SessionGroup:
    """The sessions of one client, which share the encoder. Thread-safe.

    Args:
        own: The session of the client's own collection.
        open_session: Opens a session of another collection.
    """

    def __init__(self, own: SearchSession, open_session: Callable[[str], SearchSession]) -> None:
        self._sessions = {own.name: own}
        self._open = open_session
        self._lock = threading.Lock()

    def session(self, name: str) -> SearchSession:
        """Return the session of a collection; the first call opens it."""
        with self._lock:
            if name not in self._sessions:
                self._sessions[name] = self._open(name)
            return self._sessions[name]

    def encoder_of(self, info: EncoderInfo) -> Encoder | None:
        """Return an encoder that a session has loaded, None if none is of this model."""
        for session in [*self._sessions.values()]:
            searcher = session.current
            if not searcher.bm25_only and searcher.encoder.info.has_same_vectors_as(info):
                return searcher.encoder
        return None
