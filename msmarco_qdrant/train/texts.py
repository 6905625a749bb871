"""Texts of passages, read from their collection in batches."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
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
        wanted = dict.fromkeys(pids)
        texts = read_texts(self._client, wanted, tenant=self._tenant)
        self.note(wanted, texts)
        return texts

    def note(self, wanted: Iterable[str], found: Collection[str]) -> None:
        """Count missing passages of those that were read, here or by another process.

        Raises:
            UsageError: As `get`.
        """
        self._has_found = self._has_found or bool(found)
        self._count_missing(pid for pid in wanted if pid not in found)

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


def read_texts(
    client: SearchClient, pids: Iterable[str], *, tenant: str | None = None
) -> dict[str, str]:
    """Read the texts of different passages; those that the collection lacks are left out.

    Raises:
        UsageError: If a pid is not a non-empty string.
        StoreError: If the store fails.
    """
    texts: dict[str, str] = {}
    for batch in in_batches(pids, _BATCH):
        found = client.get(batch, tenant=tenant)
        texts |= {pid: found[pid].text for pid in batch if pid in found}
    return texts
