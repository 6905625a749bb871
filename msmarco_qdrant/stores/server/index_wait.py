"""Waiting until a Qdrant server has built its indexes, for a bounded time without progress.

A server has no call that waits for its optimizers, and some never end: with
`max_optimization_threads` 0 none starts, and others stay yellow for days.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from qdrant_client import models

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.stores.names import base_name

_log = logging.getLogger(__name__)
_POLL_S = (0.05, 2.0)
_UNFINISHED = ("yellow", "grey")


def wait_for_indexes(
    read: Callable[[], models.CollectionInfo],
    sleep: Callable[[float], None],
    stall_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> models.CollectionInfo:
    """Poll the state until the server is done, has failed, or makes no progress.

    Args:
        read: Returns the state as the engine reports it.
        sleep: Waits for that many seconds.
        stall_s: Seconds without progress after which the wait ends; infinite to wait without a
            bound. A collection without optimization threads is not waited for.
        clock: Returns seconds.

    Returns:
        The last state; it is yellow or grey if the server made no progress.
    """
    pause_s, longest_s = _POLL_S
    seen, since = None, clock()
    while (info := read()).status in _UNFINISHED:
        progress = (info.status, info.indexed_vectors_count, info.segments_count)
        if progress != seen:
            seen, since = progress, clock()
        elif clock() - since >= (0 if has_no_threads(info) and stall_s < math.inf else stall_s):
            break
        sleep(pause_s)
        pause_s = min(2 * pause_s, longest_s)
    return info


def has_no_threads(info: models.CollectionInfo) -> bool:
    """True if the collection's configuration lets no optimizer run."""
    return info.config.optimizer_config.max_optimization_threads == 0


def report_unfinished(
    info: models.CollectionInfo, collection: str, place: str, stall_s: float
) -> None:
    """Warn if the server has not built all indexes.

    Args:
        info: The state after the wait.
        collection: The physical collection's name.
        place: The location of its store.
        stall_s: See `wait_for_indexes`.

    Raises:
        StoreError: If the server could not build an index.
    """
    if info.status == "red":
        raise StoreError(
            f"building the index of {collection} failed: {info.optimizer_status}; no passage is "
            "lost, run optimize again"
        )
    if info.status in _UNFINISHED:
        name = base_name(collection)
        wait = advised_command("optimize", "--wait-index", collection=name, store=place)
        _log.warning(
            "the server builds no index of the newest vectors of '%s': %s. Every passage is "
            "written, and searches find it without the index; %s waits for the index",
            *(name, stall_reason(info, stall_s), wait),
        )


def stall_reason(info: models.CollectionInfo, stall_s: float) -> str:
    """Describe why no index is built, in the words of the server's settings."""
    state = f"status {info.status.value}, {info.indexed_vectors_count or 0:,} vectors indexed"
    error = getattr(info.optimizer_status, "error", None)
    state += f", optimizers: {error}" if error else ""
    if has_no_threads(info):
        return f"max_optimization_threads of its optimizers is 0 ({state})"
    return f"its optimizers made no progress for {stall_s:g} s ({state})"
