"""Iterators in threads: order, bounds, errors and the end of the threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import pytest

from msmarco_qdrant.runtime.pipeline import Pipeline


def test_items_arrive_in_order() -> None:
    """A chain of two stages yields what the plain chain would."""
    with Pipeline() as pipeline:
        doubled = (2 * item for item in pipeline.run(range(1000), prefetch=3))
        result = list(pipeline.run(doubled, prefetch=2))
    assert result == [2 * item for item in range(1000)]


def test_prefetch_is_bounded() -> None:
    """With a prefetch of two, the third waits until one is taken."""
    produced: list[int] = []
    blocked = threading.Event()

    def source() -> Iterator[int]:
        for item in range(10):
            produced.append(item)
            if item == 2:
                blocked.set()  # the put after this one cannot go on
            yield item

    with Pipeline() as pipeline:
        items = pipeline.run(source(), prefetch=2)
        assert blocked.wait(10)
        assert produced == [0, 1, 2]
        assert [next(items), next(items)] == [0, 1]
        assert list(items) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_error_is_raised_by_the_consumer() -> None:
    """After the items that were produced before it."""

    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with Pipeline() as pipeline:
        inner = pipeline.run(source(), prefetch=4)
        outer = pipeline.run((item for item in inner), prefetch=4)
        assert next(outer) == 1
        with pytest.raises(ValueError, match="broken"):
            next(outer)


def test_leaving_early_ends_every_thread() -> None:
    """When the block is left in the middle, no thread of it goes on."""
    before = threading.active_count()
    with Pipeline() as pipeline:
        endless = iter(int, 1)
        for _ in pipeline.run((item for item in pipeline.run(endless, prefetch=1)), prefetch=1):
            break
    assert threading.active_count() == before


def test_source_that_waits_forever_is_abandoned() -> None:
    """Leaving does not wait for input that never comes."""
    never = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        never.wait()

    with Pipeline() as pipeline:
        assert next(pipeline.run(source(), prefetch=1, join_timeout_s=0.01)) == 1
    never.set()


def test_only_work_is_timed() -> None:
    """Not waits for another stage or for space in a queue; the caller is the last."""
    now = threading.local()

    def clock() -> float:
        return getattr(now, "seconds", 0.0)

    def working(items: Iterable[int], seconds: float) -> Iterator[int]:
        for item in items:
            now.seconds = clock() + seconds
            yield item

    with Pipeline("caller", clock) as pipeline:
        first = pipeline.run(working(range(10), 1.0), prefetch=1, name="first")
        second = pipeline.run(working(first, 5.0), prefetch=1)
        assert 45 == sum(working(second, 0.5))
    assert {"first": 10.0, "stage 1": 50.0, "caller": 5.0} == pipeline.stage_seconds
    assert ["first", "stage 1", "caller"] == list(pipeline.stage_seconds)


def test_thread_outside_of_the_pipeline_may_take_items() -> None:
    """Its time is not counted."""
    pipeline = Pipeline()
    assert [0, 1, 2] == list(pipeline.run(range(3), prefetch=1))
    assert ["stage 0"] == list(pipeline.stage_seconds)
    pipeline.close()


def test_an_interrupt_while_a_thread_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised, and a thread that never began is not joined."""

    def interrupted(_thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    taken: list[int] = []
    pipeline = Pipeline()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), pipeline:
            pipeline.run(map(taken.append, range(3)), prefetch=1)
    late = pipeline.run(map(taken.append, range(3)), prefetch=1)
    assert ([], []) == ([*late], taken)
