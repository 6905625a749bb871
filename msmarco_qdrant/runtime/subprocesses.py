"""Work in processes of its own, through pipes: a function, or an iterable.

Unlike those of `multiprocessing`, these processes do not read the caller's script again, so none
needs a guard around its calls; and they end with this process however it ends: the end of their
input, or an answer that nobody takes, tells them.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from queue import SimpleQueue
from typing import IO, Any, Generic, TypeVar, cast

from msmarco_qdrant.errors import WorkerError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CALL = f"from {__name__} import serve_calls; serve_calls()"
_ITERATE = f"from {__name__} import serve_items; serve_items()"


class SubprocessPool(Generic[_Item, _Result]):
    """Calls a function in other processes.

    Args:
        function: What to call; it is pickled, with all it holds.
        processes: How many, 1 or more.
    """

    def __init__(self, function: Callable[[_Item], _Result], processes: int) -> None:
        pickled = pickle.dumps(function)
        self._all = [_Worker(pickled, _CALL) for _ in range(processes)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._all:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="msmarco-qdrant-worker")

    def submit(self, item: _Item) -> Future[_Result]:
        """Begin with an item as soon as a process is idle.

        Returns:
            A future of the result; it raises what the function raised, or `WorkerError`.
        """
        return self._threads.submit(self._call, item)

    def wait_until_ready(self) -> None:
        """Wait until every process has loaded the function.

        Raises:
            WorkerError: If one ended instead.
        """
        for worker in self._all:
            worker.wait_until_ready()

    def close(self) -> None:
        """End the processes; what has not begun is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.end()
        self._threads.shutdown()

    def _call(self, item: _Item) -> _Result:
        worker = self._idle.get()
        try:
            worker.ask(item)
            return cast("_Result", worker.answer())
        finally:
            self._idle.put(worker)


class SubprocessIterator(Generic[_Item]):
    """An iterable, iterated in a process of its own, which is a bounded number of items ahead.

    Args:
        items: What to iterate; it is pickled, and so is each item.
    """

    def __init__(self, items: Iterable[_Item]) -> None:
        self._worker = _Worker(pickle.dumps(items), _ITERATE)

    def wait_until_ready(self) -> None:
        """Wait until the process has loaded the iterable.

        Raises:
            WorkerError: If it ended instead.
        """
        self._worker.wait_until_ready()

    def __iter__(self) -> Iterator[_Item]:
        """Yield the items; what their iterator raises is raised here, or `WorkerError`."""
        while (item := self._worker.answer()) is not _END:
            yield cast("_Item", item)

    def close(self) -> None:
        """End the process."""
        self._worker.end()


class _End(Enum):
    """Stands behind the last item, and stays itself when it is pickled."""

    END = 0


_END = _End.END


class _Worker:
    """A process that has one thing to do at a time."""

    def __init__(self, pickled: bytes, program: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for the one that asks
            # It finds what this process finds; and `tokenizers` starts no threads beside others.
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
        self._ready = False
        self._send(pickled)

    def ask(self, item: object) -> None:
        self._send(pickle.dumps(item, pickle.HIGHEST_PROTOCOL))

    def wait_until_ready(self) -> None:
        if not self._ready:
            self._ready = True
            self._load()

    def answer(self) -> object:
        self.wait_until_ready()
        return self._load()

    def _load(self) -> object:
        try:
            pickled = pickle.load(_pipe(self._process.stdout))  # noqa: S301  # from our own
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as exc:
            raise self._ended() from exc
        result, error = pickle.loads(pickled)  # noqa: S301
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                _pipe(pipe).close()
            except BrokenPipeError:
                continue  # what it was being sent when it ended

    def _send(self, pickled: bytes) -> None:
        try:
            pipe = _pipe(self._process.stdin)
            pipe.write(pickled)
            pipe.flush()
        except (OSError, ValueError) as exc:
            raise self._ended() from exc

    def _ended(self) -> WorkerError:
        return WorkerError(
            f"a process that read or tokenized passages has ended with status "
            f"{self._process.wait()}; if memory ran out, fewer workers take less"
        )


def serve_calls() -> None:
    """The program of a process: call a function with item after item, until the input ends."""
    function, answers = _begun()
    while True:
        try:
            item = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started it
        except EOFError:
            return
        try:
            result, error = function(item), None
        except Exception as exc:  # noqa: BLE001  # raised again where it was asked
            result, error = None, exc
        try:
            _reply(answers, result, error)
        except BrokenPipeError:
            return  # the one that asked is gone


def serve_items() -> None:
    """The program of a process: iterate, and send item after item."""
    items, answers = _begun()
    try:
        for item in items:
            _reply(answers, item, None)
    except BrokenPipeError:
        return  # nobody wants more
    except Exception as exc:  # noqa: BLE001  # raised again where it is awaited
        _reply(answers, None, exc)
    else:
        _reply(answers, _END, None)


def _begun() -> tuple[Any, IO[bytes]]:
    """What was sent to this process, and the pipe for its answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed by chance must not get between the answers
    work = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started this one
    _reply(answers, None, None)
    return work, answers


def _reply(answers: IO[bytes], result: object, error: Exception | None) -> None:
    # Pickled twice, so that one that cannot be made again there is read to its end all the same.
    pickled = pickle.dumps((result, error), pickle.HIGHEST_PROTOCOL)
    pickle.dump(pickled, answers, pickle.HIGHEST_PROTOCOL)
    answers.flush()


def _pipe(pipe: IO[Any] | None) -> IO[bytes]:
    return cast("IO[bytes]", pipe)
