"""Texts of passages, read from their collection in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.search.client import SearchClient

_log = logging.getLogger(__name__)

_BATCH = 1000


class PassageTexts:
    """The texts of a collection's passages, by pid.

    A pid that the collection lacks is counted, and the first one is logged.

    Args:
        client: A client on the collection.
        tenant: Only this tenant's passages, which a collection with a tenant field requires.
    """

    def __init__(self, client: SearchClient, *, tenant: str | None = None) -> None:
        self._client = client
        self._tenant = tenant
        self._has_found = False
        self._missing = PidSet()

    @property
    def missing(self) -> int:
        """Number of different pids that were asked for and that the collection lacks."""
        return len(self._missing)

    def get(self, pids: Iterable[str]) -> dict[str, str]:
        """Read the texts of passages, each once, in the order of `pids`.

        Returns:
            The texts of those that the collection has.

        Raises:
            UsageError: If a pid is not a non-empty string, or if the collection has none of the
                pids so far: they are another collection's.
            StoreError: If the store fails.
        """
        texts: dict[str, str] = {}
        wanted = dict.fromkeys(pids)
        for batch in in_batches(wanted, _BATCH):
            found = self._client.get(batch, tenant=self._tenant)
            texts |= {pid: found[pid].text for pid in batch if pid in found}
        self._has_found = self._has_found or bool(texts)
        self._count_missing(pid for pid in wanted if pid not in texts)
        return texts

    def _count_missing(self, pids: Iterator[str]) -> None:
        for pid in pids:
            if not self._has_found:
                raise UsageError(
                    f"the collection {self._client.collection!r} has none of the pids, such as "
                    f"{pid!r}: pass the collection from which they were mined"
                )
            if self._missing.add(pid) and len(self._missing) == 1:
                _log.warning(
                    "the collection %r lacks the passage %r; such passages are left out",
                    *(self._client.collection, pid),
                )
