"""Concurrent calls merged into few: who goes with whom, and what each is results."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msmarco_qdrant.runtime.micro_batcher import MicroBatcher

pytestmark = pytest.mark.timeout(120)

_P = ParamSpec("_P")
_T = TypeVar("_T")
_NAME = "msmarco-qdrant-merging-test"
_MOMENT_S = 0.003


class HeldClock(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until a test moves it."""

    now_s = 0.0

    def time(self) -> float:
        """The time that the test says."""
        return self.now_s


def in_loop(test: Callable[_P, Awaitable[None]]) -> Callable[_P, None]:
    """Run a test in an event loop; what asyncio would only log, or is left over, fails it."""

    @wraps(test)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> None:
        run(lambda: test(*args, **kwargs))

    return wrapped


def run(main: Callable[[], Awaitable[_T]]) -> _T:
    """The answer of a coroutine in a loop with a held clock; see `in_loop`."""
    logged: list[dict[str, Any]] = []
    gc.freeze()  # the collection below then looks at new objects only
    with asyncio.Runner(loop_factory=HeldClock) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: logged.append(context))

        async def watched() -> _T:
            answer = await main()
            assert {asyncio.current_task()} == asyncio.all_tasks()
            return answer

        answer = runner.run(watched())
    gc.collect()  # asyncio logs an exception that nobody retrieved when it deletes the future
    gc.unfreeze()
    assert [] == logged
    assert [] == [one.name for one in threading.enumerate() if one.name.startswith(_NAME)]
    return answer


class Refusal(Exception):  # noqa: N818  # the function's own, as far as a batcher knows
    """The function refuses some items."""


class Panic(BaseException):
    """As an engine in Rust raises it: no `Exception`."""


class Upper:
    """The function that is called: upper case for each item, a refusal for each "bad" one.

    Attributes:
        passes: The items of each call, in order.
    """

    def __init__(self, *, held: bool = False) -> None:
        self.passes: list[list[str]] = []
        self._held = held
        self._under_way = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)

    def __call__(self, items: Sequence[str]) -> list[str]:
        """Answer, but only when the test lets it."""
        self.passes.append([*items])
        if self._held:
            self._under_way.release()
            self._permits.acquire()
        if bad := [item for item in items if item.startswith("bad")]:
            raise Refusal(*bad)
        return [item.upper() for item in items]

    async def under_way(self) -> None:
        """Wait until one more call is being held."""
        await asyncio.to_thread(self._under_way.acquire)

    def release_one(self) -> None:
        """Let one call finish."""
        self._permits.release()

    def free(self) -> None:
        """Hold no call any more."""
        self._held = False
        self._permits.release()


def batcher_of(
    function: Callable[[Sequence[str]], Any], *, max_items: int = 64, max_wait_s: float = 0.0
) -> MicroBatcher[str, str]:
    """A batcher under test."""
    return MicroBatcher(function, max_items=max_items, max_wait_s=max_wait_s, name=_NAME)


def asked(batcher: MicroBatcher[str, str], *items: str) -> asyncio.Task[list[str]]:
    """A caller with some items."""
    return asyncio.create_task(batcher([*items]))


async def turn(times: int = 10) -> None:
    """Let the loop turn, so that everything that can go on does."""
    for _ in range(times):
        await asyncio.sleep(0)


def elapse(seconds: float) -> None:
    """Move the clock."""
    cast(HeldClock, asyncio.get_running_loop()).now_s += seconds


# ---- who goes with whom --------------------------------------------------------------------


@in_loop
async def test_callers_of_one_moment_go_together() -> None:
    """In one call, and each is results its own answers."""
    function = Upper()
    batcher = batcher_of(function)
    answers = await asyncio.gather(*map(batcher, (["a"], ["b", "c"], ["d"])))
    await batcher.close()
    assert [["A"], ["B", "C"], ["D"]] == answers
    assert [["a", "b", "c", "d"]] == function.passes


@in_loop
async def test_callers_queue_while_a_call_is_under_way() -> None:
    """And go together next, without waiting for others: the clock is never moved."""
    function = Upper(held=True)
    batcher = batcher_of(function, max_items=2, max_wait_s=_MOMENT_S)
    callers = [asked(batcher, "a", "b")]
    await function.under_way()
    callers += [asked(batcher, "c"), asked(batcher, "d")]
    await turn()
    function.free()
    assert [["A", "B"], ["C"], ["D"]] == await asyncio.gather(*callers)
    await batcher.close()
    assert [["a", "b"], ["c", "d"]] == function.passes


@in_loop
async def test_no_more_than_the_maximum_go_together() -> None:
    """A caller is never split, so one that brings more goes alone."""
    function = Upper()
    batcher = batcher_of(function, max_items=3)
    callers = ["a", "b"], ["c", "d"], ["e"], ["f", "g", "h", "i"], ["j"], ["k"], ["l"], ["m"]
    answers = await asyncio.gather(*map(batcher, callers))
    await batcher.close()
    assert [[item.upper() for item in items] for items in callers] == answers
    assert [
        ["a", "b"],
        ["c", "d", "e"],
        ["f", "g", "h", "i"],
        ["j", "k", "l"],
        ["m"],
    ] == function.passes


@in_loop
async def test_a_lone_caller_waits_for_the_moment_and_no_longer() -> None:
    """It does not go before the clock has moved so far, and goes when it has."""
    function = Upper()
    batcher = batcher_of(function, max_wait_s=_MOMENT_S)
    lone = asked(batcher, "a")
    await turn(100)
    assert [] == function.passes
    elapse(_MOMENT_S)
    assert ["A"] == await lone
    await batcher.close()


@in_loop
async def test_the_moment_counts_from_the_first_caller() -> None:
    """Who comes within it goes along, and does not make it longer."""
    function = Upper()
    batcher = batcher_of(function, max_wait_s=_MOMENT_S)
    callers = [asked(batcher, "a")]
    await turn()
    elapse(_MOMENT_S * 2 / 3)
    callers.append(asked(batcher, "b"))
    await turn()
    assert [] == function.passes
    elapse(_MOMENT_S / 3)
    assert [["A"], ["B"]] == await asyncio.gather(*callers)
    await batcher.close()
    assert [["a", "b"]] == function.passes


@in_loop
async def test_enough_callers_do_not_wait() -> None:
    """The clock is never moved, at whichever turn the last of them comes."""
    function = Upper()
    batcher = batcher_of(function, max_items=3, max_wait_s=_MOMENT_S)
    callers = [asked(batcher, "a"), asked(batcher, "b")]
    await turn()
    assert [] == function.passes
    callers.append(asked(batcher, "c"))
    assert [["A"], ["B"], ["C"]] == await asyncio.gather(*callers)
    assert ["D", "E", "F"] == await batcher(["d", "e", "f"])
    await batcher.close()
    assert [["a", "b", "c"], ["d", "e", "f"]] == function.passes


@in_loop
async def test_a_caller_may_change_its_list_while_it_waits() -> None:
    """It gets answers for what it asked, and so do those that go with it."""
    function = Upper(held=True)
    batcher = batcher_of(function)
    mine = ["a", "b"]
    callers = [asyncio.create_task(batcher(mine)), asked(batcher, "c")]
    await function.under_way()
    mine.append("d")
    callers += [asyncio.create_task(batcher(mine)), asked(batcher, "e")]
    await turn()
    mine.clear()
    function.free()
    answers = await asyncio.gather(*callers)
    await batcher.close()
    assert [["A", "B"], ["C"], ["A", "B", "D"], ["E"]] == answers


# ---- failures ------------------------------------------------------------------------------


@in_loop
async def test_each_caller_learns_its_own_failure() -> None:
    """Those that are not to blame are answered: after a failure each is tried alone."""
    function = Upper()
    batcher = batcher_of(function)
    results = await asyncio.gather(
        batcher(["a"]), batcher(["b", "bad 1"]), batcher(["c"]), batcher(["bad 2"]), batcher(["d"]),
        return_exceptions=True,
    )  # fmt: skip
    assert ["A"] == await batcher(["a"])
    await batcher.close()
    assert [["A"], "bad 1", ["C"], "bad 2", ["D"]] == [
        str(one) if isinstance(one, Refusal) else one for one in results
    ]
    together, *alone = function.passes[:-1]
    assert ["a", "b", "bad 1", "c", "bad 2", "d"] == together
    assert [["a"], ["b", "bad 1"], ["c"], ["bad 2"], ["d"]] == alone


def _panics(_: Sequence[str]) -> list[str]:
    raise Panic("index out of bounds")


def _stops(_: Sequence[str]) -> list[str]:
    return [next(iter([]))]


def _cancels(_: Sequence[str]) -> list[str]:
    raise asyncio.CancelledError


def _returns_one(_: Sequence[str]) -> list[str]:
    return ["one"]


def _returns_none(_: Sequence[str]) -> None:
    return None


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (_panics, Panic),
        (_stops, RuntimeError),
        (_cancels, asyncio.CancelledError),
        (_returns_one, RuntimeError),
        (_returns_none, TypeError),
    ],
)
def test_no_failure_leaves_a_caller_waiting(
    function: Callable[[Sequence[str]], Any], kind: type[BaseException]
) -> None:
    """Whatever the function raises or gives back, every caller is results, and so is the next."""

    async def main() -> None:
        batcher = batcher_of(function)
        for _ in range(2):
            results = await asyncio.gather(
                batcher(["a", "b"]), batcher(["c", "d"]), return_exceptions=True
            )
            assert [kind, kind] == [type(one) for one in results]
        await batcher.close()

    run(main)


# ---- cancelling ----------------------------------------------------------------------------


@in_loop
async def test_who_gives_up_while_waiting_is_left_out() -> None:
    """Its items never reach the function; the others' do."""
    function = Upper(held=True)
    batcher = batcher_of(function, max_items=2)
    first, *others = (asked(batcher, item) for item in "abcd")
    await function.under_way()
    assert [["a", "b"]] == function.passes
    others[1].cancel()
    await turn()
    function.free()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    await batcher.close()
    assert [["A"], ["B"], ["D"]] == [one for one in results if isinstance(one, list)]
    assert others[1].cancelled()
    assert [["a", "b"], ["d"]] == function.passes


@in_loop
async def test_who_gives_up_while_it_is_served_takes_nobody_with_it() -> None:
    """The call goes on for the others."""
    function = Upper(held=True)
    batcher = batcher_of(function)
    cancelled, stays = asked(batcher, "a"), asked(batcher, "b")
    await function.under_way()
    cancelled.cancel()
    await turn()
    assert (True, False) == (cancelled.cancelled(), stays.done())
    function.free()
    assert ["B"] == await stays
    await batcher.close()
    assert [["a", "b"]] == function.passes


@in_loop
async def test_cancelling_everything_leaves_nobody_waiting() -> None:
    """As some programs do to end: the batcher's own task too; then it can be closed."""
    function = Upper(held=True)
    batcher = batcher_of(function, max_items=1)
    callers = [asked(batcher, "a"), asked(batcher, "b")]
    await function.under_way()
    # as if the callers' own tasks were not among them
    waiting = [asyncio.shield(caller) for caller in callers]
    for task in asyncio.all_tasks() - {asyncio.current_task(), *callers}:
        task.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [asyncio.CancelledError] * 2 == [type(one) for one in results]
    function.free()
    assert ["C"] == await batcher(["c"])
    await batcher.close()
    assert [["a"], ["c"]] == function.passes


# ---- closing -------------------------------------------------------------------------------


@in_loop
async def test_close_waits_for_those_who_came_before() -> None:
    """Those under way and those that still wait; a second close waits for the same."""
    function = Upper(held=True)
    batcher = batcher_of(function, max_items=1)
    callers = [asked(batcher, "a"), asked(batcher, "b")]
    await function.under_way()
    closing = [asyncio.create_task(batcher.close()) for _ in range(2)]
    await turn()
    assert [False, False] == [one.done() for one in closing]
    function.free()
    await asyncio.gather(*closing)
    assert [True, True] == [one.done() for one in callers]
    assert [["A"], ["B"]] == [one.result() for one in callers]


@in_loop
async def test_a_cancelled_close_cancels_nobody() -> None:
    """Those who wait are answered all the same."""
    function = Upper(held=True)
    batcher = batcher_of(function)
    caller = asked(batcher, "a")
    await function.under_way()
    closing = asyncio.create_task(batcher.close())
    await turn()
    closing.cancel()
    await turn()
    assert not caller.done()
    function.free()
    assert ["A"] == await caller
    await asyncio.wait([closing])
    assert closing.cancelled()


@in_loop
async def test_a_closed_merger_refuses() -> None:
    """At once, and whether or not it was ever used."""
    batcher = batcher_of(Upper())
    await batcher.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await batcher(["a"])
    await batcher.close()


# ---- any schedule --------------------------------------------------------------------------

Step = tuple[str, int, bool]

_CALLS = st.tuples(st.just("call"), st.integers(1, 4), st.booleans())
_STEPS = st.one_of(
    _CALLS,
    st.tuples(st.just("cancel"), st.integers(0, 15), st.just(False)),
    *(
        st.tuples(st.just(kind), st.just(0), st.just(False))
        for kind in ("turn", "turn", "finish", "elapse")
    ),
)


class Play:
    """Callers that come, give up and are answered as a schedule says.

    Loop and worker take turns, and the clock is held, so a schedule has one outcome.
    """

    def __init__(self, max_items: int, max_wait_s: float) -> None:
        self.function = Upper(held=True)
        self.batcher = batcher_of(self.function, max_items=max_items, max_wait_s=max_wait_s)
        self.asked: list[list[str]] = []
        self.callers: list[asyncio.Task[list[str]]] = []
        self.given_up: set[int] = set()

    async def step(self, kind: str, number: int, bad: bool) -> None:
        """Do one step."""
        if kind == "call":
            caller = len(self.callers)
            words = ["bad" if bad else "good", *["good"] * (number - 1)]
            self.asked.append([f"{word} {caller} {item}" for item, word in enumerate(words)])
            self.callers.append(asked(self.batcher, *self.asked[-1]))
        elif kind == "cancel" and number < len(self.callers):
            if self.callers[number].cancel():
                self.given_up.add(number)
        elif kind == "turn":
            await turn(1)
        elif kind == "finish":
            self.function.release_one()
            # behind the call under way, if there is one: when this is done, that is done
            await asyncio.get_running_loop().run_in_executor(self.batcher._worker, int)
        else:
            elapse(_MOMENT_S)

    async def end(self) -> list[list[str] | BaseException]:
        """Hold nothing any more, and give what each caller was results."""
        self.function.free()
        while not all(caller.done() for caller in self.callers):
            elapse(_MOMENT_S)
            await turn(1)
        results = await asyncio.gather(*self.callers, return_exceptions=True)
        await self.batcher.close()
        return results

    def due(self, caller: int) -> list[str] | str:
        """What a caller is due: its answers, or a word for how it ends."""
        if caller in self.given_up:
            return "cancelled"
        if bad := [item for item in self.asked[caller] if item.startswith("bad")]:
            return f"refused {bad}"
        return [item.upper() for item in self.asked[caller]]

    def callers_of(self, items: Sequence[str]) -> Iterator[int]:
        """Whose items were in a call, each caller once."""
        yield from dict.fromkeys(int(item.split()[1]) for item in items)


def _in_words(results: list[str] | BaseException) -> list[str] | str:
    if isinstance(results, Refusal):
        return f"refused {[*results.args]}"
    return "cancelled" if isinstance(results, asyncio.CancelledError) else cast(list[str], results)


@given(
    steps=st.lists(_STEPS, max_size=40),
    max_items=st.integers(1, 6),
    max_wait_s=st.sampled_from([0.0, _MOMENT_S]),
)
@settings(max_examples=60, deadline=None)
def test_any_schedule_gives_each_caller_its_own(
    steps: list[Step], max_items: int, max_wait_s: float
) -> None:
    """Whoever comes, fails or gives up in between: its own answers, once, in the order asked."""

    async def main() -> tuple[Play, list[list[str] | BaseException]]:
        play = Play(max_items, max_wait_s)
        for step in steps:
            await play.step(*step)
        return play, await play.end()

    play, results = run(main)
    assert [play.due(caller) for caller in range(len(results))] == [
        _in_words(one) for one in results
    ]
    passes = play.function.passes
    for items in passes:
        callers = [*play.callers_of(items)]
        assert [item for caller in callers for item in play.asked[caller]] == items
        assert len(items) <= max_items or len(callers) == 1
    first_served = [*dict.fromkeys(one for items in passes for one in play.callers_of(items))]
    assert sorted(first_served) == first_served
    good = Counter(
        item
        for items in passes
        if not any(one.startswith("bad") for one in items)
        for item in items
    )
    assert all(times == 1 for times in good.values())
    assert Counter(item for items in passes for item in items).total() <= 2 * sum(
        map(len, play.asked)
    )


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
)
def test_many_callers_at_once(seed: int) -> None:
    """Three hundred callers, of whom some fail and some give up, with nothing held."""
    import random

    chance = random.Random(seed)

    async def main() -> None:
        play = Play(max_items=7, max_wait_s=_MOMENT_S)
        play.function.free()
        for _ in range(300):
            await play.step("call", chance.randint(1, 4), chance.random() < 0.1)
            if chance.random() < 0.3:
                await play.step("cancel", chance.randrange(len(play.callers)), bad=False)
            if chance.random() < 0.2:
                await play.step("turn", 0, bad=False)
        results = await play.end()
        assert [play.due(one) for one in range(300)] == [_in_words(one) for one in results]

    run(main)
