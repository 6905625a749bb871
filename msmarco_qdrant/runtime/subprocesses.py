"""Subprocesses that call a function or iterate an iterable, connected by pipes.

Unlike with `multiprocessing`, they do not import the caller's script, so it needs no
`if __name__ == "__main__"`. They end with this process, even if it is killed: their input ends, or
nobody reads their output.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue
from typing import IO, Any, Generic, TypeVar, cast

from msmarco_qdrant.errors import WorkerError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CALL = f"from {__name__} import serve_calls; serve_calls()"
_ITERATE = f"from {__name__} import serve_items; serve_items()"


class _End(Enum):
    """Marker after the last item; an enum member keeps its identity when pickled."""

    END = 0


_END = _End.END


class _Worker:
    """A subprocess with one task at a time."""

    def __init__(self, pickled: bytes, program: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C interrupts only this process
            # The subprocess imports from the same places, and `tokenizers` starts no threads.
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)
        self._ready = False
        self._write(pickled)

    def send(self, item: object) -> None:
        self._write(pickle.dumps(item, pickle.HIGHEST_PROTOCOL))

    def wait_until_ready(self) -> None:
        """Wait until the subprocess has loaded its function or iterable.

        Raises:
            WorkerError: If it ended.
        """
        if not self._ready:
            self._ready = True
            self._read()

    def receive(self) -> object:
        self.wait_until_ready()
        return self._read()

    def _read(self) -> object:
        try:
            pickled = pickle.load(self._output)  # noqa: S301  # from our own program
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as exc:
            raise self._worker_error() from exc
        result, error = pickle.loads(pickled)  # noqa: S301
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the subprocess."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with suppress(BrokenPipeError):  # it ended while it was sent an item
                pipe.close()

    def _write(self, pickled: bytes) -> None:
        try:
            self._input.write(pickled)
            self._input.flush()
        except (OSError, ValueError) as exc:
            raise self._worker_error() from exc

    def _worker_error(self) -> WorkerError:
        return WorkerError(
            "a subprocess that reads or tokenizes passages ended with status "
            f"{self._process.wait()}; if memory ran out, use fewer workers"
        )


class SubprocessPool(Generic[_Item, _Result]):
    """Calls a function in subprocesses.

    Args:
        function: The function; it is pickled with its data.
        processes: Number of subprocesses, 1 or more.
    """

    def __init__(self, function: Callable[[_Item], _Result], processes: int) -> None:
        pickled = pickle.dumps(function)
        self._all = [_Worker(pickled, _CALL) for _ in range(processes)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._all:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="msmarco-qdrant-worker")

    def submit(self, item: _Item) -> Future[_Result]:
        """Call the function with an item as soon as a subprocess is idle.

        Returns:
            A future of the result; it raises the function's exception, or `WorkerError`.
        """
        return self._threads.submit(self._call, item)

    def wait_until_ready(self) -> None:
        """Wait until every subprocess has loaded the function.

        Raises:
            WorkerError: If a subprocess ended.
        """
        for worker in self._all:
            worker.wait_until_ready()

    def close(self) -> None:
        """End the subprocesses and cancel the calls that have not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.close()
        self._threads.shutdown()

    def _call(self, item: _Item) -> _Result:
        worker = self._idle.get()
        try:
            worker.send(item)
            return cast("_Result", worker.receive())
        finally:
            self._idle.put(worker)


class SubprocessIterator(_Worker, Generic[_Item]):
    """Iterates an iterable in a subprocess, which prefetches as much as the pipe holds.

    Args:
        items: The iterable; it is pickled, and so is each item.
    """

    def __init__(self, items: Iterable[_Item]) -> None:
        super().__init__(pickle.dumps(items), _ITERATE)

    def __iter__(self) -> Iterator[_Item]:
        """Yield the items; raise the exception of their iterator, or `WorkerError`."""
        while (item := self.receive()) is not _END:
            yield cast("_Item", item)


def serve_calls() -> None:
    """Call a function with each item of the input (the program of a subprocess)."""
    function, output = _load_task()
    while True:
        try:
            item = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the parent process
        except EOFError:
            return
        try:
            result, error = function(item), None
        except Exception as exc:  # noqa: BLE001  # raised again in the parent process
            result, error = None, exc
        try:
            _reply(output, result, error)
        except BrokenPipeError:
            return  # the parent process has ended


def serve_items() -> None:
    """Iterate, and send each item (the program of a subprocess)."""
    items, output = _load_task()
    try:
        for item in items:
            _reply(output, item, None)
    except BrokenPipeError:
        return  # the parent process reads no more
    except Exception as exc:  # noqa: BLE001  # raised again in the parent process
        _reply(output, None, exc)
    else:
        _reply(output, _END, None)


def _load_task() -> tuple[Any, IO[bytes]]:
    """Load the function or iterable, and open the pipe for results."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # other prints must not mix with the results
    task = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the parent process
    _reply(output, None, None)
    return task, output


def _reply(output: IO[bytes], result: object, error: Exception | None) -> None:
    # Pickled twice: the parent reads a whole reply, even one whose content it cannot unpickle.
    pickled = pickle.dumps((result, error), pickle.HIGHEST_PROTOCOL)
    pickle.dump(pickled, output, pickle.HIGHEST_PROTOCOL)
    output.flush()
