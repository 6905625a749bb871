"""Comparison of the pids of judgments and runs with those of a collection."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection as Sized
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.collection.tenants import is_tenants
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.records import Qrels, Run
from msmarco_qdrant.stores.payload import point_id

if TYPE_CHECKING:
    from msmarco_qdrant.search.client import SearchClient

_BATCH = 1000
_CHECKED_PIDS = 1000  # of a run: enough to see that it belongs to another collection
_EXAMPLES = 3
_NUMBER_AT_END = re.compile(r"[0-9]+\Z")
_log = logging.getLogger(__name__)


def relevant_pids(qrels: Qrels) -> set[str]:
    """Return the pids with a grade of 1 or more for some query."""
    return {pid for grades in qrels.values() for pid, grade in grades.items() if grade >= 1}


class SearchedPassages:
    """The passages that an evaluation searches: those of a collection, or of one of its tenants.

    Args:
        client: A client of the collection.
        tenant: The tenant, if the collection has tenants.

    Attributes:
        name: The collection's name.
        scope: The filter of the tenant's passages; None without tenants.

    Raises:
        UsageError: If the collection has tenants and none is given, or the other way round.
    """

    def __init__(self, client: SearchClient, tenant: str | None) -> None:
        self.name = client.collection
        self.scope = client.session.current.scope(tenant)
        self._metadata = client.metadata
        self._tenant = tenant
        self._collection = client.store.collection(client.collection)

    @property
    def place(self) -> str:
        """The collection, and the tenant if there is one, for messages."""
        of_tenant = "" if self.scope is None else f" of the tenant {self._tenant!r}"
        return f"collection {self.name!r}{of_tenant}"

    def find(self, pids: Iterable[str]) -> set[str]:
        """Return those of the pids that are among the passages."""
        found: set[str] = set()
        fields = ("pid",) if self.scope is None else ("pid", "meta")
        for batch in in_batches(pids, _BATCH):
            ids = {point_id(pid): pid for pid in batch if pid}
            payloads = self._collection.retrieve([*ids], fields)
            found.update(pid for id_, pid in ids.items() if self._is(pid, payloads.get(id_, {})))
        return found

    def first_pids(self, count: int) -> list[str]:
        """Return so many pids, of any of the passages."""
        stored = self._collection.scan(("pid",), meta_filter=self.scope)
        return [str(payload.get("pid")) for _, payload in islice(stored, count)]

    def _is(self, pid: str, payload: Mapping[str, Any]) -> bool:
        is_own = is_tenants(self._metadata, payload.get("meta") or {}, self._tenant)
        return payload.get("pid") == pid and is_own


def count_missing_relevant(passages: SearchedPassages, judged: Qrels) -> int:
    """Count the relevant passages that a collection, or its tenant, lacks.

    Args:
        passages: The passages that are searched.
        judged: Judgments with one relevant passage or more.

    Raises:
        UsageError: If it lacks all of them.
        StoreError: If it cannot be read.
    """
    relevant = relevant_pids(judged)
    found = passages.find(relevant)
    if not found:
        raise UsageError(
            f"none of the {len(relevant):,} relevant passages of the judgments is in the "
            f"{passages.place}: {_examples('the judgments have', relevant, passages)}; pass the "
            "judgments of this collection, or ingest it with the pids of the judgments"
        )
    return len(relevant) - len(found)


def check_run_pids(passages: SearchedPassages, run: Run, judged: Qrels) -> None:
    """Refuse a run of another collection; warn if some of its first passages are missing.

    At most 1,000 pids are compared.

    Raises:
        UsageError: If the collection has none of them.
        StoreError: If it cannot be read.
    """
    pids = set(islice(_first_pids(run, judged), _CHECKED_PIDS))
    found = passages.find(pids)
    if pids and not found:
        raise UsageError(
            f"none of the {len(pids):,} first passages of the run {run.name!r} is in the "
            f"{passages.place}: {_examples('the run has', pids, passages)}; pass a run of this "
            "collection"
        )
    if len(found) < len(pids):
        _log.warning(
            "%s of the %s first passages of the run '%s' are not in the %s",
            f"{len(pids) - len(found):,}",
            f"{len(pids):,}",
            run.name,
            passages.place,
        )


def warn_unjudged(run: Run, judged: Qrels) -> None:
    """Warn if no passage of a run has a judgment for its query, so that every measure is 0."""
    pids = set(islice(_first_pids(run, judged), _EXAMPLES))
    if pids and not any(
        pid in grades for qid, grades in judged.items() for pid, _ in run.rankings.get(qid, ())
    ):
        _log.warning(
            "no passage of the run '%s' is judged: it has pids such as %s, the judgments %s",
            run.name,
            quoted_examples(pids),
            quoted_examples({pid for grades in judged.values() for pid in grades}),
        )


def quoted_examples(names: Sized[str]) -> str:
    """Return the first names in their order, such as "'1', '2', '3'"."""
    return ", ".join(map(repr, sorted(names)[:_EXAMPLES])) or "none"


def _first_pids(run: Run, judged: Qrels) -> Iterator[str]:
    """Yield the best passages of each judged query, then the second best, and so on."""
    rankings = [run.rankings[qid] for qid in judged if run.rankings.get(qid)]
    for rank in range(max(map(len, rankings), default=0)):
        yield from (ranking[rank][0] for ranking in rankings if rank < len(ranking))


def _examples(subject: str, pids: Sized[str], passages: SearchedPassages) -> str:
    """Return pids of both sides, of the same passages if their forms are similar."""
    similar = {pid: _other_forms(pid) for pid in sorted(pids)[:_BATCH]}
    present = passages.find({form for forms in similar.values() for form in forms})
    for pid, forms in similar.items():
        if same := [form for form in forms if form in present]:
            return f"{subject} pids such as {pid!r}, the collection {same[0]!r}"
    own = passages.first_pids(_EXAMPLES)
    return f"{subject} pids such as {quoted_examples(pids)}, the collection {quoted_examples(own)}"


def _other_forms(pid: str) -> list[str]:
    """Return pids that a collection may have instead: "159" for "doc-159" and "0159"."""
    forms = [pid.strip(), pid.lower(), pid.upper()]
    if number := _NUMBER_AT_END.search(pid):
        forms += [number[0], number[0].lstrip("0") or "0"]
    return [form for form in dict.fromkeys(forms) if form and form != pid]
