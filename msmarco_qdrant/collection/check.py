"""Check a collection for faults, and repair what can be repaired.

Any client of a server can change a collection. An interrupted process leaves locks and empty
collections. A check finds both and reports what a repair does; by default it changes nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike

from msmarco_qdrant.collection.check_points import PointChecker, PointFault
from msmarco_qdrant.collection.generations import (
    Generations,
    abandon_hint,
    read_generations,
    reembed_command,
)
from msmarco_qdrant.collection.graph import graph_note
from msmarco_qdrant.collection.replicas import (
    find_replica_differences,
    most_points,
    settle_replicas,
)
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.metadata_types import LockHolder
from msmarco_qdrant.runtime.progress import counted_progress
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.filters import index_kind
from msmarco_qdrant.stores.migration_locks import describe_holder, hold_lock
from msmarco_qdrant.stores.names import base_name
from msmarco_qdrant.stores.unlinked import find_unlinked, missing_alias

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault of a collection.

    Attributes:
        kind: Its name, such as "foreign-point".
        problem: A sentence for people.
        count: Number of points, collections or settings that have it.
        examples: Some of them.
        repair: What a repair does, "" if it can do nothing.
        advice: The next step where a repair is not enough, "" if it is.
        removes: True if the repair removes something, so that it needs a confirmation.
        repaired: Number that this call has repaired.
    """

    kind: str
    problem: str
    count: int
    examples: tuple[str, ...] = ()
    repair: str = ""
    advice: str = ""
    removes: bool = False
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check.

    Attributes:
        collection: The name that users see.
        physical: The physical collection that was checked, None if the name has none.
        points: Points that were read.
        findings: The faults, the most basic first.
        graph_note: The advice for a large collection without a graph, not a fault; None for
            any other.
    """

    collection: str
    physical: str | None
    points: int
    findings: tuple[Finding, ...]
    graph_note: str | None = None

    @property
    def is_sound(self) -> bool:
        """True if no fault is left."""
        return all(found.repaired >= found.count for found in self.findings)

    def __str__(self) -> str:
        place = f" in {self.physical}" if self.physical else ""
        lines = [f"'{self.collection}': {self.points:,} points checked{place}"]
        lines += [f"{one.kind}: {one.problem}" for one in self.findings]
        lines += [] if self.findings else ["no fault found"]
        return "\n".join(lines if self.graph_note is None else [*lines, self.graph_note])

    def __repr__(self) -> str:
        faults = ", ".join(one.kind for one in self.findings) or "no fault found"
        return f"<CheckReport: '{self.collection}', {self.points:,} points checked: {faults}>"


_MARKS = "marks them, so that an ingest does not take them for unchanged"
_INGEST = "ingest their sources again: only such passages are written"
# The problem, what a repair does, and the next step.
_POINT_FAULTS: Mapping[PointFault, tuple[str, str, str]] = {
    "foreign-point": (
        "points are not passages",
        "removes them",
        _INGEST,
    ),
    "lost-pid": ("passages lost their pid", "restores it from the point's id", ""),
    "lost-content": ("passages lost their text or meta", _MARKS, _INGEST),
    "lost-seq": ("passages lost their seq", "gives them a new one", ""),
    "wrong-text-digest": (
        "passages have another text than their text_digest, and perhaps than their vector",
        _MARKS,
        _INGEST,
    ),
    "wrong-meta-digest": (
        "passages have another meta than their meta_digest",
        "computes the digest again",
        "",
    ),
    "bad-vector": ("passages have no valid vector", _MARKS, _INGEST),
}


@suggest_keywords
def check_collection(
    store: Store | str | PathLike[str],
    name: str,
    *,
    repair: bool = False,
    remove: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    progress: bool = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> CheckReport:
    """Check the collection behind a name: alias, lock, indexes, replicas and every point.

    Other clients may search and write during the check. A point that they write is not repaired.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        name: The name that users see.
        repair: Repair what can be repaired without removing anything.
        remove: With `repair`, also remove foreign points and leftover collections.
        on_progress: Called regularly with the points done and their total.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Raises:
        CollectionNotFoundError: If nothing of that name exists.
        StoreInUseError: If another process is migrating the collection, for a repair.
        StoreError: If the engine fails; finished repairs are kept.
    """
    with use_store(store, connection) as opened:
        name = base_name(name)
        unlinked = _check_alias(opened, name)
        if unlinked is not None:
            return CheckReport(name, None, 0, (unlinked,))
        with counted_progress(on_progress, progress=progress) as count:
            check = _Check(opened, name, repair=repair, remove=repair and remove, on_progress=count)
            return check.run()


def _check_alias(store: Store, name: str) -> Finding | None:
    """Find a missing alias, and one that points to a missing collection.

    A server deletes the aliases of a collection with it, so only Edge has dangling ones.
    """
    live, found = store.aliases().get(name), find_unlinked(store, name)
    if live is None and found:
        problem, _, advice = str(missing_alias(name, found, store.dsn)).partition(": ")
        return Finding("missing-alias", problem, 1, advice=advice)
    if live is None:
        raise store.unknown_collection(name)
    if live in store.physical_names():
        return None
    problem = f"the alias '{name}' points to {live}, which does not exist"
    link = advised_command("migrate", "link", name, store=store.dsn)
    advice = f"point it to another collection with {link}" if found else "restore a backup"
    return Finding("dangling-alias", problem, 1, tuple(map(str, found)), advice=advice)


class _Check:
    """One check of a name whose alias is valid."""

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        repair: bool,
        remove: bool,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._store = store
        self._name = name
        self._repair = repair
        self._remove = remove
        self._on_progress = on_progress

    def run(self) -> CheckReport:
        """Check everything."""
        found = read_generations(self._store, self._name)
        findings = [*self._check_lock(found)]
        with self._hold_lock():
            findings += self._check_leftovers(found)
            findings += self._check_indexes(found.live)
            findings += self._check_model(found)
            findings += self._check_replicas(found.live)
            checker = self._checker(found)
            info = self._store.collection(found.live).info()
            note, total = graph_note(self._store, self._name, info), info.points
            points = checker.check(
                repair=self._repair,
                remove=self._remove,
                on_progress=lambda done: self._on_progress(done, max(done, total)),
            )
        findings += _point_findings(checker)
        return CheckReport(self._name, found.live, points, tuple(findings), note)

    @contextmanager
    def _hold_lock(self) -> Iterator[None]:
        """Keep migrations away from a repair."""
        if not self._repair:
            yield
            return
        with hold_lock(self._store.migration_locks, self._name, self._store.dsn):
            yield

    def _checker(self, found: Generations) -> PointChecker:
        collection = self._store.collection(found.live)
        admin = self._store.admin_collection(found.live)
        return PointChecker(collection, admin, found.metadata.encoder, collection.info().last_seq)

    def _check_lock(self, found: Generations) -> Iterator[Finding]:
        """Find the lock of a process that may have ended. It is never released.

        Containers may share a host name and not the processes, so a missing pid proves nothing.
        """
        holder = self._store.migration_locks.holder(self._name)
        if holder is None and found.copying is not None:
            dsn, model = self._store.dsn, found.copying.metadata.encoder.model
            command = reembed_command(dsn, self._name, model)
            yield Finding(
                "unfinished-reembedding",
                f"the re-embedding into {found.copying.target} is not finished",
                1,
                advice=f"resume it with {command}{abandon_hint(dsn, self._name, found.copying)}",
            )
        if holder is None or _is_running(holder):
            return
        unlock = advised_command(
            *("migrate", "unlock", "--token", holder.token),
            collection=self._name,
            store=self._store.dsn,
        )
        problem = f"{describe_holder(holder)} holds the lock of migrations"
        advice = f"if that process has ended, release it with {unlock}"
        yield Finding("lock", problem, 1, advice=advice)

    def _check_leftovers(self, found: Generations) -> Iterator[Finding]:
        """Find collections without metadata: their creation was interrupted."""
        counts = {physical: most_points(self._store, physical) for physical in found.unreadable}
        empty = [physical for physical, points in counts.items() if not points]
        if empty:
            problem = f"an interrupted creation left {len(empty)} empty collections"
            finding = Finding(
                "leftover", problem, len(empty), (*empty,), repair="drops them", removes=True
            )
            if self._remove:
                for physical in empty:
                    self._store.drop_collection(physical)
                finding = replace(finding, repaired=len(empty))
            yield finding
        for physical, points in counts.items():
            if points:
                yield Finding(
                    "unreadable",
                    f"{physical} has {points:,} points and no metadata of this version",
                    1,
                    advice="use the version that wrote it, or another client to look at it",
                )

    def _check_indexes(self, live: str) -> Iterator[Finding]:
        """Find a missing index of `seq`: deletes, migrations and ordered reads need it."""
        if not self._store.capabilities.payload_indexes:
            return
        indexes = self._store.collection(live).spec().payload_indexes
        kind = index_kind(indexes, "seq")
        if kind == "integer":
            return
        has = f"an index of kind {kind}" if kind else "no payload index"
        problem = f"seq has {has}; deletes and re-embeddings need one of kind integer"
        finding = Finding("missing-index", problem, 1, ("seq",), repair="creates it")
        if self._repair:
            self._store.admin_collection(live).create_payload_index("seq", "integer")
            finding = replace(finding, repaired=1)
        yield finding

    def _check_replicas(self, live: str) -> Iterator[Finding]:
        """Find replicas of a cluster that differ, by writes that failed on some of them."""
        found = find_replica_differences(self._store, live)
        if found.is_equal:
            return
        counts = found.counts
        finding = Finding(
            "differing-replicas",
            f"{len(found.differing):,} points differ between replicas, and {found.hidden:,} are "
            f"only on replicas that this node does not read; the replicas hold {counts.fewest:,} "
            f"to {counts.most:,} points",
            max(1, len(found.differing) + found.hidden),
            tuple(map(str, found.differing[:_EXAMPLES])),
            repair="writes points that differ again, and removes those that this node does not "
            "read and that are ten minutes old",
            removes=True,
        )
        if self._remove:
            left = settle_replicas(self._store, live)
            repaired = finding.count if left.is_equal else 0
            finding = replace(finding, repaired=repaired, advice=_REPLICAS_LEFT)
        yield finding

    def _check_model(self, found: Generations) -> Iterator[Finding]:
        """Find metadata of another model than the vectors have."""
        spec, encoder = self._store.collection(found.live).spec(), found.metadata.encoder
        stored = (spec.dense, spec.dimension, spec.similarity)
        expected = (encoder.vector_name, encoder.dimension, encoder.similarity)
        if stored != expected:
            yield Finding(
                "wrong-model",
                f"{found.live} has vectors {stored}, its metadata are of {expected}",
                1,
                advice="restore a backup, or ingest the passages into another collection",
            )


_REPLICAS_LEFT = (
    "ingest the passages again, which writes what a replica lacks; or repeat this with the URL of "
    "a node that holds the newest writes"
)


def _point_findings(checker: PointChecker) -> Iterator[Finding]:
    for kind, (problem, repair, advice) in _POINT_FAULTS.items():
        if kind in checker.faults:
            faulty = checker.faults[kind]
            yield Finding(
                kind,
                f"{faulty.count:,} {problem}",
                faulty.count,
                tuple(faulty.examples),
                repair,
                advice,
                removes=kind == "foreign-point",
                repaired=faulty.repaired,
            )


def _is_running(holder: LockHolder) -> bool:
    """True if a process of this pid runs on this machine."""
    if holder.host != socket.gethostname():
        return False
    if os.name == "nt":  # a signal of 0 would end the process there
        return True
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True
