"""Writes of a search client, with its encoder and its store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.reports import UpsertReport
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import CollectionReplacedError, ModelMismatchError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.ingest.indexing import Indexing, IndexingSettings
from msmarco_qdrant.ingest.upsert import Outcome, report_outcomes, upsert_rows
from msmarco_qdrant.search.driver import execute_step
from msmarco_qdrant.search.request import MAX_UNCHANGED
from msmarco_qdrant.search.session import SearchSession
from msmarco_qdrant.search.step import Refresh
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """Passages to delete, of one tenant: these pids, or those that match the filter."""

    pids: Iterable[str] | None
    meta_filter: SearchFilter | None
    tenant: str | None = None


class PassageWriter:
    """Writes to the collection of a session. Thread-safe: one write at a time.

    An engine that builds indexes on request builds one after as many passages as the sidecar's.

    Args:
        session: The session, whose encoder it uses.
        store: The store.
        collection: The collection's name.
        settings: Frequency and size of index builds; None for those of the sidecar.

    Attributes:
        indexing: The index builds.
    """

    def __init__(
        self,
        session: SearchSession,
        store: Store,
        collection: str,
        settings: IndexingSettings | None = None,
    ) -> None:
        self._session = session
        self._store = store
        self._name = collection
        self._lock = threading.Lock()
        self.indexing = Indexing(store, collection, settings or IndexingSettings())

    def upsert(self, rows: Sequence[Passage | Reject]) -> list[Outcome]:
        """Write rows durably, with the collection's model also after a re-embedding.

        Returns:
            What became of each row.
        """
        return self.upsert_using(rows, lambda encoder: encoder)

    def upsert_using(
        self, rows: Sequence[Passage | Reject], using: Callable[[Encoder], Encoder]
    ) -> list[Outcome]:
        """Write rows as `upsert` does, with another encoder of the same model.

        Args:
            rows: The rows.
            using: Returns that encoder, given the session's.
        """
        self._session.check_open()
        with self._lock:
            outcomes = self._upsert(rows, using)
            self.indexing.wrote(sum(outcome == "written" for outcome in outcomes))
            self.indexing.pause(idle=True)
        return outcomes

    def delete(self, deletion: Deletion) -> int:
        """Delete passages durably; return their number."""
        self._session.check_open()
        with self._lock:
            return delete_passages(
                self._store,
                deletion.pids,
                meta_filter=deletion.meta_filter,
                tenant=deletion.tenant,
                collection=self._name,
            )

    def report(self, outcomes: Sequence[Outcome]) -> UpsertReport:
        """Count what became of the rows of one call, and log the first reject."""
        report = report_outcomes(outcomes)
        if report.rejects:
            first = report.rejects[0]
            _log.warning(
                "upsert into '%s': %s of %s rows rejected; the first: row %s: %s",
                *(self._name, f"{report.rejected:,}", f"{len(outcomes):,}"),
                *(first.line, first.reason),
            )
        return report

    def _upsert(
        self, rows: Sequence[Passage | Reject], using: Callable[[Encoder], Encoder]
    ) -> list[Outcome]:
        searcher, unchanged = self._session.current, 0
        while True:
            try:
                return upsert_rows(self._store, self._name, using(searcher.encoder), rows)
            except (CollectionReplacedError, ModelMismatchError):
                newer = execute_step(self._session, Refresh(searcher))
                unchanged = unchanged + 1 if newer is searcher else 0
                if unchanged > MAX_UNCHANGED:
                    raise
                searcher = newer
