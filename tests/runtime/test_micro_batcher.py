"""Concurrent calls merged into few: the batches, and the results of each caller."""

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


class HeldClock(asyncio.SelectorEventLoop):
    """An event loop whose time stands still, so that nothing may wait for it."""

    now_s = 0.0

    def time(self) -> float:
        """Always the same."""
        return self.now_s


def in_loop(test: Callable[_P, Awaitable[None]]) -> Callable[_P, None]:
    """Run a test in an event loop; errors that asyncio only logs, and tasks left, fail it."""

    @wraps(test)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> None:
        run(lambda: test(*args, **kwargs))

    return wrapped


def run(main: Callable[[], Awaitable[_T]]) -> _T:
    """The result of a coroutine in a loop with a held clock; see `in_loop`."""
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
        """Return the results, once the test permits it."""
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
    function: Callable[[Sequence[str]], Any], *, max_items: int = 64
) -> MicroBatcher[str, str]:
    """A batcher under test."""
    return MicroBatcher(function, max_items=max_items, name=_NAME)


def asked(batcher: MicroBatcher[str, str], *items: str) -> asyncio.Task[list[str]]:
    """A caller with some items."""
    return asyncio.create_task(batcher([*items]))


async def turn(times: int = 10) -> None:
    """Let the loop turn, so that everything that can go on does."""
    for _ in range(times):
        await asyncio.sleep(0)


# ---- batches --------------------------------------------------------------------


@in_loop
async def test_calls_during_a_batch_form_the_next() -> None:
    """It does not wait for others: the clock is never moved."""
    function = Upper(held=True)
    batcher = batcher_of(function, max_items=2)
    callers = [asked(batcher, "a", "b")]
    await function.under_way()
    callers += [asked(batcher, "c"), asked(batcher, "d")]
    await turn()
    function.free()
    assert [["A", "B"], ["C"], ["D"]] == await asyncio.gather(*callers)
    await batcher.close()
    assert [["a", "b"], ["c", "d"]] == function.passes


@in_loop
async def test_batches_hold_at_most_the_maximum() -> None:
    """A call is never split, so one with more items is a batch alone."""
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
async def test_r9_a_call_that_finds_the_function_idle_does_not_wait() -> None:
    """The clock is never moved; a later call does not join it."""
    function = Upper()
    batcher = batcher_of(function)
    assert ["A"] == await batcher(["a"])
    assert ["B"] == await batcher(["b"])
    assert [["C"], ["D"]] == [*await asyncio.gather(batcher(["c"]), batcher(["d"]))]
    await batcher.close()
    assert [["a"], ["b"], ["c", "d"]] == function.passes


@in_loop
async def test_caller_may_change_its_list_while_it_waits() -> None:
    """It gets results for the items at the call, and so do the others of its batch."""
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
async def test_each_caller_gets_its_own_error() -> None:
    """After a failure each call runs alone, so the others get their results."""
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
def test_every_failure_reaches_all_callers(
    function: Callable[[Sequence[str]], Any], kind: type[BaseException]
) -> None:
    """For errors and wrong results of the function, also in the next batch."""

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
async def test_call_cancelled_while_it_waits_is_dropped() -> None:
    """Its items never reach the function."""
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
async def test_call_cancelled_in_a_batch_does_not_stop_it() -> None:
    """The other callers get their results."""
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
async def test_cancelling_all_tasks_leaves_no_caller_waiting() -> None:
    """The batcher's own task too, as some programs do to end; then it can be closed."""
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
async def test_close_waits_for_earlier_calls() -> None:
    """Both running and waiting ones; a second close waits, too."""
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
async def test_cancelled_close_cancels_no_caller() -> None:
    """The waiting callers get their results."""
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
async def test_closed_batcher_refuses_calls() -> None:
    """Also if it was never used."""
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
    *(st.tuples(st.just(kind), st.just(0), st.just(False)) for kind in ("turn", "turn", "finish")),
)


class Play:
    """Calls that begin, are cancelled and end in the order of a schedule.

    Loop and worker take turns, and the clock is held, so a schedule has one outcome.
    """

    def __init__(self, max_items: int) -> None:
        self.function = Upper(held=True)
        self.batcher = batcher_of(self.function, max_items=max_items)
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
        else:
            self.function.release_one()
            # behind the call under way, if there is one: when this is done, that is done
            await asyncio.get_running_loop().run_in_executor(self.batcher._worker, int)

    async def end(self) -> list[list[str] | BaseException]:
        """Let all calls finish, and return their results and errors."""
        self.function.free()
        while not all(caller.done() for caller in self.callers):
            await turn(1)
        results = await asyncio.gather(*self.callers, return_exceptions=True)
        await self.batcher.close()
        return results

    def due(self, caller: int) -> list[str] | str:
        """The expected results of a caller, or a word for its end."""
        if caller in self.given_up:
            return "cancelled"
        if bad := [item for item in self.asked[caller] if item.startswith("bad")]:
            return f"refused {bad}"
        return [item.upper() for item in self.asked[caller]]

    def callers_of(self, items: Sequence[str]) -> Iterator[int]:
        """The callers of some items, each once."""
        yield from dict.fromkeys(int(item.split()[1]) for item in items)


def _in_words(results: list[str] | BaseException) -> list[str] | str:
    if isinstance(results, Refusal):
        return f"refused {[*results.args]}"
    return "cancelled" if isinstance(results, asyncio.CancelledError) else cast(list[str], results)


@given(
    steps=st.lists(_STEPS, max_size=40),
    max_items=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_random_schedules_give_each_caller_its_results(steps: list[Step], max_items: int) -> None:
    """With failing and cancelled calls in between: once, and in the order of the calls."""

    async def main() -> tuple[Play, list[list[str] | BaseException]]:
        play = Play(max_items)
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
