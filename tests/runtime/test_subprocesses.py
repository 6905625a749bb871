"""A function in processes of its own: results, errors, and an end that always comes.

Where a test has to know that a process is in the middle of something, the process says so through a
named pipe, whose two ends wait for each other.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest

from msmarco_qdrant.errors import SourceError, WorkerError
from msmarco_qdrant.runtime.subprocesses import SubprocessIterator, SubprocessPool
from tests.conftest import ROOT

Start: TypeAlias = "Callable[..., SubprocessPool[Any, Any]]"
Submit: TypeAlias = "Callable[[Callable[[Any], Any], Any], Future[Any]]"


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts workers and waits until they are ready; they are closed afterwards."""
    started: list[SubprocessPool[Any, Any]] = []

    def ready(function: Callable[[Any], Any], processes: int = 1) -> SubprocessPool[Any, Any]:
        started.append(SubprocessPool(function, processes))
        started[-1].wait_until_ready()
        return started[-1]

    yield ready
    for workers in started:
        workers.close()


def call(call: tuple[Callable[[Any], Any], Any]) -> Any:
    """Call a function with its argument."""
    function, item = call
    return function(item)


@pytest.fixture(scope="module")
def submit() -> Iterator[Submit]:
    """A function that calls another in one of two subprocesses."""
    with closing(SubprocessPool(call, 2)) as workers:
        yield lambda function, item: workers.submit((function, item))


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A named pipe."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


# ---- what is called there --------------------------------------------------------------------


class TwoArgumentsError(Exception):
    """An error that cannot be unpickled, as it keeps one argument of two."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class Unloadable:
    """What ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (7,)

    def __call__(self, item: int) -> int:
        """Never called."""
        return item


class Large:
    """A function that is larger than a pipe."""

    def __init__(self) -> None:
        self.data = b"x" * 2_000_000

    def __call__(self, number: int) -> int:
        """Double a number."""
        return 2 * number


def closing_every_file(_: int) -> None:
    """Close the pipe, and never return."""
    os.closerange(0, 64)
    while True:
        signal.pause()


class UnpicklableError(Exception):
    """An error that cannot be pickled."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("no")


def unpicklable(kind: str) -> object:
    """Return or raise what cannot be pickled."""
    if kind == "raise":
        raise UnpicklableError("seen")
    return kind if kind == "well" else lambda: None


def square(number: int) -> int:
    """A function."""
    return number * number


def echo(item: object) -> object:
    """What it got."""
    return item


def noisy(number: int) -> int:
    """Print in every way there is."""
    print("printed", number, flush=True)
    os.write(1, b"written\n")
    subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    return number


def failing(number: int) -> int:
    """Fail on odd numbers."""
    if number % 2:
        raise SourceError(f"{number} is odd")
    return number


def failing_oddly(number: int) -> int:
    """Fail on odd numbers, with an error that cannot be unpickled."""
    if number % 2:
        raise TwoArgumentsError("a", "b")
    return number


def ending(how: str) -> str:
    """End the process."""
    if how == "exit":
        sys.exit(3)
    return how


def say_and_hang(fifo: str) -> None:
    """Write the process id to a named pipe, and never return."""
    Path(fifo).write_text(str(os.getpid()))
    while True:
        signal.pause()


def meet(end: tuple[str, str]) -> str:
    """One end of a named pipe, which waits for the other."""
    path, mode = end
    with open(path, mode) as file:  # noqa: PTH123  # of either mode
        return "wrote" if mode == "w" and file.write("met") else str(file.read())


# ---- results ---------------------------------------------------------------------------------


def test_each_item_gets_its_own_result(submit: Submit) -> None:
    """Results belong to their items, in any order of completion."""
    futures = {number: submit(square, number) for number in range(300)}
    assert {number: number * number for number in range(300)} == {
        number: future.result() for number, future in reversed(futures.items())
    }


def test_processes_work_at_once(submit: Submit, fifo: Path) -> None:
    """Two calls that wait for each other both end."""
    ends = [submit(meet, (str(fifo), mode)) for mode in "rw"]
    assert ["met", "wrote"] == [end.result() for end in ends]


def test_items_and_results_of_any_size(submit: Submit) -> None:
    """Items and results may be larger than a pipe; an item that cannot be pickled fails alone."""
    for item in (None, b"", b"x" * 10_000_000, ["\U0001f9ea\ud800"], {1: (2.5,)}):
        assert item == submit(echo, item).result()
    with pytest.raises(AttributeError, match="local object"):
        submit(echo, lambda: None).result()
    assert 5 == submit(echo, 5).result()


def test_what_is_printed_does_not_disturb(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    """It goes to the standard error output, and the results are right."""
    workers = start(noisy)
    assert [0, 1, 2] == [workers.submit(number).result() for number in range(3)]
    workers.close()
    out, err = capfd.readouterr()
    assert "" == out
    assert [err.count(word) for word in ("printed", "written", "by a child")] == [3, 3, 3]


# ---- noise, silence, and a start side by side --------------------------------------------------


@pytest.fixture
def at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that has each Python of a subprocess run a `sitecustomize` first."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))

    def run(program: str) -> None:
        (place / "sitecustomize.py").write_text(program)

    return run


NOISE = {
    "a line": "print('noise')",
    "bytes": "import os; os.write(1, bytes(range(256)))",
    "a flood": "import os; [os.write(fd, b'noise' * 200_000) for fd in (1, 2)]",
    "a reader": "import sys; sys.stdin.read()",
    "closed": "import os; os.close(0), os.close(1)",
}


@pytest.mark.parametrize(
    "name", ["a line", *(pytest.param(name, marks=pytest.mark.slow) for name in [*NOISE][1:])]
)
def test_c2_a_noisy_start_does_not_disturb(
    start: Start,
    at_start: Callable[[str], None],
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """Items and results do not use the standard streams; what is printed goes to standard error."""
    at_start(NOISE[name])
    workers = start(square)
    assert [0, 1, 4] == [workers.submit(number).result() for number in range(3)]
    with closing(SubprocessIterator(Counting(3))) as items:
        assert [0, 1, 2] == list(items)
    out, err = capfd.readouterr()
    assert "" == out
    assert ("noise" in err) == ("noise" in NOISE[name])


def test_c2_a_subprocess_that_ends_at_its_start(at_start: Callable[[str], None]) -> None:
    """It is reported with its status, however often it is asked."""
    at_start("import os; os._exit(5)")
    with closing(SubprocessPool(square, 1)) as workers:
        for _ in range(2):
            with pytest.raises(WorkerError, match="ended with status 5;"):
                workers.wait_until_ready()
        with pytest.raises(WorkerError, match="ended with status 5;"):
            workers.submit(1).result()


def test_c2_a_subprocess_that_never_answers(at_start: Callable[[str], None]) -> None:
    """It is ended after a time limit, and reported."""
    at_start("import signal; signal.pause()")
    with closing(SubprocessPool(square, 1, answer_s=0.1)) as workers:
        with pytest.raises(WorkerError, match="did not answer for 0 s and was ended: run it again"):
            workers.wait_until_ready()
        with pytest.raises(WorkerError, match="ended with status -9;"):
            workers.submit(1).result()


@pytest.mark.slow  # it waits for the exit of one that does not exit
def test_c2_a_subprocess_that_closes_its_pipe_and_stays(start: Start) -> None:
    """It is ended, instead of a wait for its end."""
    workers = start(closing_every_file)
    with pytest.raises(WorkerError, match="ended with status -9;"):
        workers.submit(1).result()


MEETING = """
import os, pathlib, sys, time
place = pathlib.Path(__file__).parent
(place / f"{os.getpid()}.started").touch()
ends = time.monotonic() + 60
while len(list(place.glob("*.started"))) < 3:
    if time.monotonic() > ends:
        os._exit(9)
    time.sleep(0.01)
"""


def test_c2_subprocesses_start_side_by_side(start: Start, at_start: Callable[[str], None]) -> None:
    """Each waits for the others at its start; the function is larger than a pipe."""
    at_start(MEETING)
    workers = start(Large(), 3)
    assert [0, 2, 4] == [workers.submit(number).result() for number in range(3)]


# ---- errors ----------------------------------------------------------------------------------


def test_error_of_the_function_is_raised(submit: Submit) -> None:
    """With its type and message; the process continues with the next item."""
    futures = [submit(failing, number) for number in range(6)]
    assert [0, 2, 4] == [future.result() for future in futures[::2]]
    errors = [future.exception() for future in futures[1::2]]
    assert [SourceError] * 3 == [type(error) for error in errors]
    assert ["1 is odd", "3 is odd", "5 is odd"] == [str(error) for error in errors]


def test_error_that_cannot_be_unpickled_fails_one_item(submit: Submit) -> None:
    """Later items have their results."""
    futures = [submit(failing_oddly, number) for number in range(4)]
    assert [int, TypeError, int, TypeError] == [
        type(future.exception() or future.result()) for future in futures
    ]
    assert [0, 2] == [future.result() for future in futures[::2]]


def test_c2_results_and_errors_that_cannot_be_pickled_fail_one_item(submit: Submit) -> None:
    """The process goes on."""
    result, error, after = (submit(unpicklable, kind) for kind in ("return", "raise", "well"))
    assert "local object" in str(result.exception())
    assert "a subprocess failed: UnpicklableError('seen')" == str(error.exception())
    assert "well" == after.result()


def test_an_ended_process_is_reported_with_its_status(start: Start) -> None:
    """The item in progress and all later items of the process raise `WorkerError`."""
    workers = start(ending)
    assert "well" == workers.submit("well").result()
    for item in ("exit", "well"):
        with pytest.raises(WorkerError, match="ended with status 3;"):
            workers.submit(item).result()


def test_a_process_that_is_killed_from_outside(start: Start, fifo: Path) -> None:
    """The call in progress raises, and does not wait forever."""
    workers = start(say_and_hang)
    future = workers.submit(str(fifo))
    os.kill(int(fifo.read_text()), signal.SIGKILL)
    with pytest.raises(WorkerError, match="ended with status -9;"):
        future.result()


def test_a_function_that_cannot_be_loaded() -> None:
    """Waiting for the processes raises."""
    raises = pytest.raises(WorkerError, match="ended with status 7;")
    with closing(SubprocessPool(Unloadable(), 1)) as workers, raises:
        workers.wait_until_ready()


# ---- the end ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_close_leaves_no_process(start: Start) -> None:
    """Nor a thread's work: what is submitted later is refused; closing again does nothing."""
    workers = start(square, 2)
    before = psutil.Process().children()
    workers.close()
    workers.close()
    assert 2 == len([child for child in before if not child.is_running()])
    with pytest.raises(RuntimeError, match="after shutdown"):
        workers.submit(1)


def test_close_while_busy(start: Start, fifo: Path) -> None:
    """It ends a call that would never end, and drops what has not begun."""
    workers = start(say_and_hang)
    busy: Future[None] = workers.submit(str(fifo))
    waiting: Future[None] = workers.submit(str(fifo))
    child = psutil.Process(int(fifo.read_text()))
    workers.close()
    assert not child.is_running()
    assert isinstance(busy.exception(), WorkerError)
    assert waiting.cancelled()


def test_close_before_they_are_ready() -> None:
    """Processes that are still starting end as well."""
    before = set(psutil.Process().children())
    workers = SubprocessPool(square, 2)
    begun = set(psutil.Process().children()) - before
    workers.close()
    assert [False, False] == [child.is_running() for child in begun]


# ---- an iterable -----------------------------------------------------------------------------


class Counting:
    """Numbers up to a bound, None for no end, and then perhaps an error."""

    def __init__(self, bound: int | None, error: Exception | None = None) -> None:
        self.bound = bound
        self.error = error

    def __iter__(self) -> Iterator[int]:
        """Count."""
        yield from itertools.count() if self.bound is None else range(self.bound)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(("bound", "waits"), [(0, 2), (5000, 0)])
def test_items_of_an_iterator_come_in_order(bound: int, waits: int) -> None:
    """All items arrive, with or without `wait_until_ready`."""
    with closing(SubprocessIterator(Counting(bound))) as items:
        for _ in range(waits):
            items.wait_until_ready()
        assert list(range(bound)) == list(items)


def test_an_iterator_can_be_awaited_before_its_first_item_is_taken() -> None:
    """The item, or the end, is there without waiting; it is not lost."""
    with closing(SubprocessIterator([7])) as items:
        items.wait_for_item()
        assert items._pipe.poll(0)
        assert [7] == list(items)


def test_an_error_of_an_iterator_comes_after_its_items() -> None:
    """What was made before it still arrives, then the error as it is."""
    with closing(SubprocessIterator(Counting(3, SourceError("broken at 3")))) as items:
        iterator = iter(items)
        assert [0, 1, 2] == list(itertools.islice(iterator, 3))
        with pytest.raises(SourceError, match=r"^broken at 3$"):
            next(iterator)


@pytest.mark.parametrize("is_killed", [False, True])
def test_endless_iterator_is_closed_or_killed(is_killed: bool) -> None:
    """A closed one leaves no process; a killed one raises after the items that it sent."""
    before = set(psutil.Process().children())
    with closing(SubprocessIterator(Counting(None))) as items:
        iterator = iter(items)
        assert [0, 1, 2] == list(itertools.islice(iterator, 3))
        [child] = set(psutil.Process().children()) - before
        if is_killed:
            child.kill()
            with pytest.raises(WorkerError, match="ended with status -9;"):
                list(iterator)
    assert not child.is_running()


# ---- programs of their own -------------------------------------------------------------------

# No guard: the processes do not run it again, or it would start processes without end.
_WAITING = """
import sys
from msmarco_qdrant.runtime.subprocesses import SubprocessPool
from tests.runtime.test_subprocesses import square
workers = SubprocessPool(square, 2)
workers.wait_until_ready()
print(workers.submit(7).result(), flush=True)
sys.stdin.read()
"""
_ITERATING = """
import sys
from msmarco_qdrant.runtime.subprocesses import SubprocessIterator
from tests.runtime.test_subprocesses import Counting
items = iter(SubprocessIterator(Counting(None)))
print(next(items) + next(items), flush=True)
sys.stdin.read()
"""
_INTERRUPTED = """
import signal, sys
from msmarco_qdrant.runtime.subprocesses import SubprocessPool
from tests.runtime.test_subprocesses import square
signal.signal(signal.SIGINT, signal.default_int_handler)
workers = SubprocessPool(square, 2)
workers.wait_until_ready()
try:
    print("ready", flush=True)
    sys.stdin.read()
except KeyboardInterrupt:
    print([workers.submit(number).result() for number in range(5)], flush=True)
workers.close()
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """A function that runs a script in a session of its own."""
    running: list[subprocess.Popen[str]] = []

    def run(text: str) -> subprocess.Popen[str]:
        script = tmp_path / "script.py"
        script.write_text(text)
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


Program: TypeAlias = Callable[[str], "subprocess.Popen[str]"]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().rstrip("\n")
    if not line:
        raise AssertionError(process.communicate()[1])
    return line


def _runs(process: psutil.Process) -> bool:
    """One that ended may stay as a zombie where nobody waits for orphans, as in a container."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_processes_end_with_a_script(program: Program, is_killed: bool) -> None:
    """It needs no guard and closes nothing; the end of their input ends the processes."""
    process = program(_WAITING)
    assert "49" == _line(process)
    children = psutil.Process(process.pid).children()
    assert [True, True] == [_runs(child) for child in children]
    if is_killed:
        process.kill()
    assert ("", "") == process.communicate()  # which waits for the processes, as they share it
    assert (-9 if is_killed else 0) == process.returncode
    psutil.wait_procs([child for child in children if _runs(child)], timeout=60)
    assert [False, False] == [_runs(child) for child in children]


@pytest.mark.slow
def test_kill_of_a_script_ends_an_endless_iterable(program: Program) -> None:
    """The subprocess cannot write its items, and ends without output."""
    process = program(_ITERATING)
    assert "1" == _line(process)
    [child] = psutil.Process(process.pid).children()
    process.kill()
    assert "" == process.communicate()[1]
    psutil.wait_procs([child] if _runs(child) else [], timeout=60)
    assert not _runs(child)


@pytest.mark.slow
def test_ctrl_c_interrupts_only_the_script(program: Program) -> None:
    """An interrupt of its process group does not stop the subprocesses."""
    process = program(_INTERRUPTED)
    assert "ready" == _line(process)
    os.killpg(process.pid, signal.SIGINT)
    assert ("[0, 1, 4, 9, 16]\n", "") == process.communicate()
    assert 0 == process.returncode
