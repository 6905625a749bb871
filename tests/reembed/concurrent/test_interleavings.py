"""Between any two calls of a migration anything may happen: here all of it does, one by one.

No clock decides: a handle on the store lets others act before a call of a given number, or ends
there as `kill -9` would. In memory, where a whole migration takes a fraction of a second.
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

from msmarco_qdrant.collection.passages import get_passages
from msmarco_qdrant.core.records import EncoderInfo
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.errors import ModelNotFoundError
from msmarco_qdrant.reembed.api import reembed_collection, rollback_collection
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import new_store
from tests.reembed.concurrent.acts import Acts
from tests.reembed.concurrent.ledger import Ledger, check_holds
from tests.reembed.concurrent.running import NAME, NEW, OLD, filled, unlock
from tests.reembed.concurrent.watching import Actor, Killed, Script, watched

AFTER = (1, 3, 5)
"""How many calls after the first acts the second ones come."""
TELLING = frozenset(
    {"aliases", "physical_names", "info", "scan", "retrieve"}  # what is decided by what they tell
    | {"create_collection", "put_metadata", "set_alias"}
    | {"upsert", "replace_payloads", "upsert_if_seq", "delete"}
)
"""Calls before which it matters what others do; before the rest it is as before the next."""
WRITES = frozenset(
    {"take", "release", "create_collection", "drop_collection", "put_metadata", "set_alias"}
    | {"alter", "create_payload_index", "drop_payload_index", "upsert", "upsert_if_seq", "delete"}
)
SEEDS = range(20)
SOAK_SEEDS = 2000

Change = Callable[[Store], object]
Act = Callable[[], object]


def there(store: Store) -> None:
    """Re-embed; without asking the old model for comparison, which takes most of the time."""
    reembed_collection(store, NAME, encoder=NEW, load_old=not_loaded)


def back(store: Store) -> None:
    """Roll back, in the same way."""
    rollback_collection(store, NAME, encoder=OLD, load_old=not_loaded)


def not_loaded(encoder_info: EncoderInfo) -> Encoder:
    """Say that a model is not there, which a comparison does without."""
    raise ModelNotFoundError(f"{encoder_info.model} is not there")


@contextmanager
def small(place: Path, *, changed: bool) -> Iterator[tuple[Store, Ledger]]:
    """A store with a few passages, of the old model, or by now of the new one."""
    with new_store("memory", place) as store:
        ledger = filled(store, 15, anchors=1)
        if changed:
            there(store)
        yield store, ledger


def changed_with(acts: dict[int, Act], store: Store, change: Change) -> Script:
    """A whole change with acts before some of its calls."""
    script = Script(acts, TELLING)
    change(watched(store, script))
    return script


@pytest.mark.parametrize("change", [there, back])
def test_anything_may_happen_before_any_call(tmp_path: Path, change: Change) -> None:
    """Writes, new metas and removals before a call; before a later one they are taken back."""
    number = calls = 0
    while number <= calls:
        with small(tmp_path, changed=change is back) as (store, ledger):
            others = Acts(store, ledger)
            acts: dict[int, Act] = {number: others.first}
            for row, later in enumerate(AFTER):
                acts[number + later] = partial(others.second, row)
            calls = len(changed_with(acts, store, change).calls)
            check_holds(store, NAME, ledger.expected, _model_after(change))
        number += 1
    assert number > 20


@pytest.mark.parametrize("change", [there, back])
@pytest.mark.parametrize("first", ["write", "after the write", "set_alias"])
def test_it_may_be_killed_after_any_write(tmp_path: Path, change: Change, first: str) -> None:
    """And run again. Others act just before that write, or after it, or before the swap and it."""
    number, is_over = 0, False
    while not is_over:
        with small(tmp_path, changed=change is back) as (store, ledger):
            others = Acts(store, ledger)
            is_over = not is_killed(Death(number, others, first), store, change)
            others.second(1)
            unlock(store)
            if not is_changed(store, _model_after(change)):
                change(store)
            check_holds(store, NAME, ledger.expected, _model_after(change))
        number += 1
    assert number > 5


class Death:
    """Called before each call: the change is killed when it has made a write of a given number.

    Args:
        write: Which write, counted from 0; what only reads leaves nothing behind.
        others: Those who act meanwhile.
        first: When they begin: just before that "write", "after the write", or before the call
            "set_alias"; then they go on just before the write.
    """

    def __init__(self, write: int, others: Acts, first: str) -> None:
        self._left = write
        self._others = others
        self._first = first
        self._has_begun = self._is_over = False
        self._lock = threading.RLock()

    def __call__(self, call: str) -> None:
        """A call is about to be made."""
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

    def _begin_if(self, is_time: bool) -> None:  # the time, and nothing else
        if is_time and not self._has_begun:
            self._has_begun = True
            self._others.first()


def is_killed(death: Death, store: Store, change: Change) -> bool:
    """Whether a change was killed before its end."""
    try:
        change(watched(store, death))
    except Killed:
        return True
    return False


def is_changed(store: Store, encoder: HashingEncoder) -> bool:
    """Whether nothing is left to do."""
    metadata = store.metadata(NAME)
    return metadata.copied_from is None and metadata.encoder == encoder.info


def _model_after(change: Change) -> HashingEncoder:
    return OLD if change is back else NEW


# ---- others that are in the middle of something ---------------------------------------------


def straggling_write(others: Acts) -> None:
    """A new text, what is as it was, and a new passage."""
    others.write(others.version("0", 1), others.version("p1", 0), others.version("late", 0))


def straggling_delete(others: Acts) -> None:
    """Two that are there, and one that is not."""
    others.delete("0", "p1", "late")


def straggling_return(others: Acts) -> None:
    """They are removed, and one of them is back with the text that it had."""
    others.delete("0", "p1")
    others.write(others.version("0", 0))


def straggling_prune(others: Acts) -> None:
    """An ingest of all but two, which are removed."""
    others.prune("0", "p1")


STRAGGLERS = [straggling_write, straggling_delete, straggling_return, straggling_prune]


class Paused:
    """Somebody who works, and pauses; their thread begins with the first `advance`.

    Args:
        store: Where.
        work: What they do.
        ledger: Where it is noted.
    """

    def __init__(self, store: Store, work: Callable[[Acts], object], ledger: Ledger) -> None:
        self._begin = partial(
            Actor, store, lambda handle: work(Acts(handle, ledger)), counted=TELLING
        )
        self._actor: Actor | None = None

    def advance(self, calls: float) -> None:
        """Let so many calls be made."""
        if self._actor is None:
            self._actor = self._begin()
        self._actor.advance(calls)

    def finish(self) -> int:
        """Let all be made, if any was; their number. Once more does nothing."""
        if self._actor is None:
            return 0
        self._actor.finish()
        return self._actor.made


@dataclass(frozen=True, slots=True)
class Moments:
    """When somebody begins, pauses, and goes on: calls of the change, and one of their own."""

    begins: int
    pauses_after: int
    ends: int


def straggle(
    place: Path, work: Callable[[Acts], None], when: Moments, changes: Sequence[Change]
) -> int:
    """Somebody works in one of the changes and pauses for a while; the calls of their work."""
    with small(place, changed=changes[0] is back) as (store, ledger):
        others = Paused(store, work, ledger)
        acts: dict[int, Act] = {when.begins: partial(others.advance, when.pauses_after)}
        acts[max(when.ends, when.begins + 1)] = others.finish
        script = Script(acts, TELLING)
        try:
            for change in changes:
                change(watched(store, script))
        finally:
            made = others.finish()
        check_holds(store, NAME, ledger.expected, _model_after(changes[-1]))
        return made


@pytest.mark.parametrize("work", STRAGGLERS)
@pytest.mark.parametrize("changes", [[there], [there, back]], ids=["there", "there-and-back"])
def test_somebody_may_pause_before_any_call_until_all_is_over(
    tmp_path: Path, work: Callable[[Acts], None], changes: Sequence[Change]
) -> None:
    """A write or a removal that began before the change, and goes on after it, there or back."""
    number = made = 0
    while number <= made:
        made = straggle(tmp_path, work, Moments(0, number, 1_000_000), changes)
        number += 1
    assert number > 5


@pytest.mark.parametrize("change", [there, back])
def test_a_removal_may_pause_between_the_swap_and_the_end(tmp_path: Path, change: Change) -> None:
    """What came just before the swap is removed while it is copied, in whatever order."""
    with small(tmp_path, changed=change is back) as (store, _):
        swap = changed_with({}, store, change).calls.index("set_alias")
    for pauses_after in (5, 6, 7):  # before each of its three deletes
        for ends in range(swap + 4, swap + 13):
            with small(tmp_path, changed=change is back) as (store, ledger):
                removal = Paused(store, lambda others: others.delete("fresh0", "0"), ledger)
                acts: dict[int, Act] = {
                    swap: Acts(store, ledger).first,
                    swap + 1: partial(removal.advance, pauses_after),
                    ends: removal.finish,
                }
                changed_with(acts, store, change)
                removal.finish()
                check_holds(store, NAME, ledger.expected, _model_after(change))


@pytest.mark.parametrize("change", [there, back])
def test_what_is_removed_while_it_is_copied_is_gone_at_once(tmp_path: Path, change: Change) -> None:
    """Between the look at the source and the write: it is not there until the passes are over."""
    with small(tmp_path, changed=change is back) as (store, ledger):
        others, calls = Acts(store, ledger), list[str]()
        found: list[object] = []

        def act(call: str) -> None:
            if call == "set_alias":
                others.first()
            elif call == "upsert_if_seq" and "set_alias" in calls:
                others.delete("fresh0", "0")
                calls.clear()
            elif call == "scan" and calls[:1] == ["upsert_if_seq"]:  # the next pass begins
                found.append(get_passages(store, ["fresh0", "0"], collection=NAME))
            calls.append(call)

        change(watched(store, act))
        assert {} == found[0]
        check_holds(store, NAME, ledger.expected, _model_after(change))


def test_a_write_may_come_between_the_change_and_the_way_back(tmp_path: Path) -> None:
    """It began before the one, and ends after the other, where the name leads where it led."""
    number = made = 0
    while number <= made:
        with small(tmp_path, changed=False) as (store, ledger):
            writer = Paused(store, straggling_write, ledger)
            writer.advance(number)
            there(store)
            writer.advance(2)
            back(store)
            made = writer.finish()
            check_holds(store, NAME, ledger.expected, OLD)
        number += 1
    assert number > 5


def at_random(place: Path, seed: int) -> None:
    """Somebody begins at any call, pauses before any of their own, goes on at any later one."""
    rng = random.Random(seed)
    begins = rng.randrange(40)
    ends = begins + rng.randrange(1, rng.choice([4, 12, 60]))
    straggle(
        place,
        rng.choice(STRAGGLERS),
        Moments(begins, rng.randrange(12), ends),
        rng.choice([[there], [back], [there, back], [back, there]]),
    )


def test_somebody_may_pause_at_any_time(tmp_path: Path) -> None:
    """At random, but the same every time."""
    for seed in SEEDS:
        at_random(tmp_path, seed)


@pytest.mark.soak
def test_soak_of_somebody_who_pauses(tmp_path: Path) -> None:
    """As often as it takes to have had nearly every pair of moments."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\nseeds from {first}")
    for seed in range(first, first + SOAK_SEEDS):
        at_random(tmp_path, seed)
