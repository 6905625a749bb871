"""Writes, deletes and kills between any two calls of a re-embedding, one place at a time.

A hooked handle lets other clients act before a call of a given number, or ends there as by
`kill -9`; no clock is involved. The slow run tries every third place, the soak all of them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import ModelNotFoundError
from msmarco_qdrant.reembed.api import reembed_collection, rollback_collection
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import new_store
from tests.reembed.concurrent.call_hooks import CallScript, Killed, SteppedThread, hooked
from tests.reembed.concurrent.client_actions import ClientActions
from tests.reembed.concurrent.expected_passages import ExpectedPassages, check_holds
from tests.reembed.concurrent.scenario import NAME, NEW, OLD, fill, unlock

AFTER = (1, 3, 5)
"""Calls between the first actions and the second ones."""
COUNTED = frozenset(
    {"aliases", "physical_names", "info", "scan", "retrieve"}  # reads that decide what is done
    | {"create_collection", "put_metadata", "set_alias"}
    | {"upsert", "replace_payloads", "upsert_if_seq", "delete"}
)
"""Calls before which actions of others matter."""
WRITES = frozenset(
    {"take", "release", "create_collection", "drop_collection", "put_metadata", "set_alias"}
    | {"alter", "create_payload_index", "drop_payload_index", "upsert", "upsert_if_seq", "delete"}
)
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))]
every_place = pytest.mark.parametrize(
    "stride", [pytest.param(3, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.soak)]
)
SOAK_SEEDS = 2000

Change = Callable[[Store], object]
Act = Callable[[], object]


def there(store: Store) -> None:
    """Re-embed without the comparison, which takes most of the time."""
    reembed_collection(store, NAME, encoder=NEW, load_old=not_loaded)


def back(store: Store) -> None:
    """Roll back, in the same way."""
    rollback_collection(store, NAME, encoder=OLD, load_old=not_loaded)


def not_loaded(encoder_info: EncoderInfo) -> Encoder:
    """Fail to load the old model, which skips the comparison."""
    raise ModelNotFoundError(f"{encoder_info.model} is not there")


@contextmanager
def small(place: Path, *, changed: bool) -> Iterator[tuple[Store, ExpectedPassages]]:
    """A store with a few passages of the old model, or of the new one."""
    with new_store("memory", place) as store:
        expected = fill(store, 15, anchors=1)
        if changed:
            there(store)
        yield store, expected


def changed_with(acts: dict[int, Act], store: Store, change: Change) -> CallScript:
    """Run a whole change with actions before some of its calls."""
    script = CallScript(acts, COUNTED)
    change(hooked(store, script))
    return script


@every_place
@pytest.mark.parametrize("change", [there, back])
def test_clients_act_before_any_call(tmp_path: Path, change: Change, stride: int) -> None:
    """Writes, new metas and deletes before a call are reverted before a later one."""
    number = calls = 0
    while number <= calls:
        with small(tmp_path, changed=change is back) as (store, expected):
            others = ClientActions(store, expected)
            acts: dict[int, Act] = {number: others.first}
            for row, later in enumerate(AFTER):
                acts[number + later] = partial(others.second, row)
            calls = len(changed_with(acts, store, change).calls)
            check_holds(store, NAME, expected.passages, _model_after(change))
        number += stride
    assert number > 20


@every_place
@pytest.mark.parametrize("change", [there, back])
@pytest.mark.parametrize("first", ["write", "after the write", "set_alias"])
def test_a_kill_after_any_write(tmp_path: Path, change: Change, first: str, stride: int) -> None:
    """Others act before that write, after it, or before the swap; then it is run again."""
    number, is_over = 0, False
    while not is_over:
        with small(tmp_path, changed=change is back) as (store, expected):
            others = ClientActions(store, expected)
            is_over = not is_killed(Death(number, others, first), store, change)
            others.second(1)
            unlock(store)
            if not is_changed(store, _model_after(change)):
                change(store)
            check_holds(store, NAME, expected.passages, _model_after(change))
        number += stride
    assert number > 3  # a rollback makes few writes


class Death:
    """A hook that kills the change after its write of a given number.

    Args:
        write: The number of the write, from 0.
        others: The client that acts.
        first: When its first actions come: before that "write", "after the write", or before the
            call "set_alias"; the second ones then come before the write.
    """

    def __init__(self, write: int, others: ClientActions, first: str) -> None:
        self._left = write
        self._others = others
        self._first = first
        self._has_begun = self._is_over = False
        self._lock = threading.RLock()

    def __call__(self, call: str) -> None:
        """Handle the next call."""
        with self._lock:
            if self._left < 0:
                self._begin_if(self._first == "after the write" and not self._is_over)
                self._is_over = True
                raise Killed
            self._begin_if(call == self._first)
            self._left -= call in WRITES
            if self._left < 0:
                if self._has_begun:
                    self._others.second(0)
                self._begin_if(self._first == "write")

    def _begin_if(self, is_time: bool) -> None:
        if is_time and not self._has_begun:
            self._has_begun = True
            self._others.first()


def is_killed(death: Death, store: Store, change: Change) -> bool:
    """True if a change was killed before its end."""
    try:
        change(hooked(store, death))
    except Killed:
        return True
    return False


def is_changed(store: Store, encoder: HashingEncoder) -> bool:
    """True if the change is complete."""
    metadata = store.metadata(NAME)
    return metadata.copied_from is None and metadata.encoder == encoder.info


def _model_after(change: Change) -> HashingEncoder:
    return OLD if change is back else NEW


# ---- clients that pause ----------------------------------------------------------------------


def straggling_write(others: ClientActions) -> None:
    """Write a new text, an unchanged passage, and a new passage."""
    others.write(others.version("0", 1), others.version("p1", 0), others.version("late", 0))


def straggling_delete(others: ClientActions) -> None:
    """Delete two passages, and one that does not exist."""
    others.delete("0", "p1", "late")


def straggling_return(others: ClientActions) -> None:
    """Delete two passages, and write one of them again."""
    others.delete("0", "p1")
    others.write(others.version("0", 0))


def straggling_prune(others: ClientActions) -> None:
    """Prune two passages."""
    others.prune("0", "p1")


STRAGGLERS = [straggling_write, straggling_delete, straggling_return, straggling_prune]


class Paused:
    """A client that works and pauses; its thread starts with the first `advance`."""

    def __init__(
        self, store: Store, work: Callable[[ClientActions], object], expected: ExpectedPassages
    ) -> None:
        self._begin = partial(
            SteppedThread,
            store,
            lambda handle: work(ClientActions(handle, expected)),
            counted=COUNTED,
        )
        self._actor: SteppedThread | None = None

    def advance(self, calls: float) -> None:
        """Allow some calls."""
        if self._actor is None:
            self._actor = self._begin()
        self._actor.advance(calls)

    def finish(self) -> int:
        """Allow all calls, if it has started; returns their number."""
        if self._actor is None:
            return 0
        self._actor.finish()
        return self._actor.made


@dataclass(frozen=True, slots=True)
class Moments:
    """The calls of the change at which a client begins and ends, and its own call it pauses at."""

    begins: int
    pauses_after: int
    ends: int


def straggle(
    place: Path, work: Callable[[ClientActions], None], when: Moments, changes: Sequence[Change]
) -> int:
    """Run changes while a client works and pauses; returns the number of its calls."""
    with small(place, changed=changes[0] is back) as (store, expected):
        others = Paused(store, work, expected)
        acts: dict[int, Act] = {when.begins: partial(others.advance, when.pauses_after)}
        acts[max(when.ends, when.begins + 1)] = others.finish
        script = CallScript(acts, COUNTED)
        try:
            for change in changes:
                change(hooked(store, script))
        finally:
            made = others.finish()
        check_holds(store, NAME, expected.passages, _model_after(changes[-1]))
        return made


@every_place
@pytest.mark.parametrize("work", STRAGGLERS)
@pytest.mark.parametrize("changes", [[there], [there, back]], ids=["there", "there-and-back"])
def test_a_client_pauses_before_any_call_until_all_is_over(
    tmp_path: Path, work: Callable[[ClientActions], None], changes: Sequence[Change], stride: int
) -> None:
    """A write or delete begins before the change and continues after it, there or back."""
    number = made = 0
    while number <= made:
        made = straggle(tmp_path, work, Moments(0, number, 1_000_000), changes)
        number += stride
    assert number > 5


@every_place
@pytest.mark.parametrize("change", [there, back])
def test_a_delete_pauses_between_the_swap_and_the_end(
    tmp_path: Path, change: Change, stride: int
) -> None:
    """A passage written just before the swap is deleted while it is copied, in any order."""
    with small(tmp_path, changed=change is back) as (store, _):
        swap = changed_with({}, store, change).calls.index("set_alias")
    for pauses_after in (5, 6, 7):  # before each of its three deletes
        for ends in range(swap + 4, swap + 13, stride):
            with small(tmp_path, changed=change is back) as (store, expected):
                removal = Paused(store, lambda others: others.delete("fresh0", "0"), expected)
                acts: dict[int, Act] = {
                    swap: ClientActions(store, expected).first,
                    swap + 1: partial(removal.advance, pauses_after),
                    ends: removal.finish,
                }
                changed_with(acts, store, change)
                removal.finish()
                check_holds(store, NAME, expected.passages, _model_after(change))


def at_random(place: Path, seed: int) -> None:
    """A client begins at any call, pauses at any of its own, and ends at any later call."""
    rng = random.Random(seed)
    begins = rng.randrange(40)
    ends = begins + rng.randrange(1, rng.choice([4, 12, 60]))
    straggle(
        place,
        rng.choice(STRAGGLERS),
        Moments(begins, rng.randrange(12), ends),
        rng.choice([[there], [back], [there, back], [back, there]]),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_client_pauses_at_random(tmp_path: Path, seed: int) -> None:
    """Random places from a fixed seed."""
    at_random(tmp_path, seed)


@pytest.mark.soak
def test_soak_of_pausing_clients(tmp_path: Path) -> None:
    """Often enough for nearly every pair of places."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\nseeds from {first}")
    for seed in range(first, first + SOAK_SEEDS):
        at_random(tmp_path, seed)
