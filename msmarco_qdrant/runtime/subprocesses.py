"""Subprocesses that call a function or iterate an iterable, connected by pipes.

Unlike with `multiprocessing`, they do not import the caller's script, so it needs no
`if __name__ == "__main__"`. They end with this process, even if it is killed: nobody sends them
items or reads their results. These have a pipe of their own. What a subprocess prints, such as a
`sitecustomize` before its first line, goes to the standard error output.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

from msmarco_qdrant.errors import WorkerError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CALL = f"from {__name__} import serve_calls; serve_calls()"
_ITERATE = f"from {__name__} import serve_items; serve_items()"

ANSWER_S = 900.0
"""Most seconds without an answer: a task takes one, a start on a busy machine a minute."""
_EXIT_S = 5.0
"""Seconds for the exit of a subprocess that has closed its pipe."""


class _End(Enum):
    """Marker after the last item; an enum member keeps its identity when pickled."""

    END = 0


_END = _End.END


class _Worker:
    """A subprocess with one task at a time. It starts in the background.

    Args:
        pickled: The function or iterable.
        program: The program, which receives it.
        answer_s: Most seconds to wait for an answer.
    """

    def __init__(self, pickled: bytes, program: str, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._busy = threading.RLock()  # the pipe is not closed while a thread uses it
        self._is_ready = False
        self._pipe, other = Pipe()
        try:
            self._process = _start(program, other)
        except OSError as exc:
            self._pipe.close()
            raise WorkerError(f"a subprocess cannot be started: {exc}; use fewer workers") from exc
        finally:
            other.close()
        # A thread, as the task may be larger than the pipe: other subprocesses start at once.
        self._sender = threading.Thread(target=self._send_task, args=(pickled,), daemon=True)
        self._sender.start()

    def send(self, item: object) -> None:
        pickled = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
        self.wait_until_ready()
        with self._busy:
            try:
                self._pipe.send_bytes(pickled)
            except (OSError, ValueError) as exc:
                raise self._worker_error() from exc

    def wait_until_ready(self) -> None:
        """Wait until the subprocess has loaded its function or iterable.

        Raises:
            WorkerError: If it ended, or does not answer.
        """
        with self._busy:
            if not self._is_ready:
                self._read()
                self._is_ready = True

    def receive(self) -> object:
        self.wait_until_ready()
        return self._read()

    def close(self) -> None:
        """End the subprocess."""
        self._process.kill()
        self._process.wait()
        self._sender.join()
        with self._busy:  # a thread that waits for an answer gets the end of the pipe
            self._pipe.close()

    def _send_task(self, pickled: bytes) -> None:
        with suppress(OSError, ValueError):  # it ended: the first reader reports it
            self._pipe.send_bytes(pickled)

    def _read(self) -> object:
        with self._busy:
            try:
                if not self._pipe.poll(self._answer_s):
                    raise self._silence_error()
                pickled = self._pipe.recv_bytes()
            except (EOFError, OSError, ValueError) as exc:
                raise self._worker_error() from exc
        result, error = pickle.loads(pickled)  # noqa: S301  # from our own program
        if error is not None:
            raise error
        return result

    def _silence_error(self) -> WorkerError:
        self._process.kill()
        return WorkerError(
            f"a subprocess did not answer for {self._answer_s:.0f} s and was ended: run it again, "
            "with fewer workers or processes if this machine is busy"
        )

    def _worker_error(self) -> WorkerError:
        try:
            status = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:  # it closed its pipe and runs on
            self._process.kill()
            status = self._process.wait()
        return WorkerError(
            f"a subprocess ended with status {status}; if memory ran out, use fewer workers or "
            "processes"
        )


def _start(program: str, pipe: Connection) -> subprocess.Popen[bytes]:
    """Start a program that inherits one end of a pipe, whose number is its argument."""
    inherited: dict[str, Any] = {"pass_fds": (pipe.fileno(),)}
    if sys.platform == "win32":
        os.set_handle_inheritable(pipe.fileno(), True)
        handles = {"handle_list": [pipe.fileno()]}
        inherited = {"startupinfo": subprocess.STARTUPINFO(lpAttributeList=handles)}
    return subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-P", "-u", "-c", program, str(pipe.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=2,  # with everything that it prints; -u, as it ends by a signal
        process_group=0,  # Ctrl-C interrupts only this process
        # The subprocess imports from the same places, and `tokenizers` starts no threads.
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TOKENIZERS_PARALLELISM": "false",
        },
        **inherited,
    )


class SubprocessPool(Generic[_Item, _Result]):
    """Calls a function in subprocesses.

    Args:
        function: The function; it is pickled with its data.
        processes: Number of subprocesses, 1 or more; they start side by side.
        answer_s: Most seconds to wait for one that does not answer.

    Raises:
        WorkerError: If a subprocess cannot be started.
    """

    def __init__(
        self,
        function: Callable[[_Item], _Result],
        processes: int,
        *,
        answer_s: float = ANSWER_S,
    ) -> None:
        pickled = pickle.dumps(function)
        self._all: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        try:
            for _ in range(processes):
                self._all.append(_Worker(pickled, _CALL, answer_s))
                self._idle.put(self._all[-1])
        except BaseException:
            self._close_workers()
            raise
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
        self._close_workers()
        self._threads.shutdown()

    def _close_workers(self) -> None:
        for worker in self._all:
            worker.close()

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

    def wait_for_item(self) -> None:
        """Wait until the next item, or an error, can be received without waiting.

        Raises:
            WorkerError: If the subprocess ended during its start, or does not answer.
        """
        self.wait_until_ready()
        with self._busy, suppress(OSError, ValueError):  # it ended: the first reader reports it
            if not self._pipe.poll(self._answer_s):
                raise self._silence_error()

    def __iter__(self) -> Iterator[_Item]:
        """Yield the items; raise the exception of their iterator, or `WorkerError`."""
        while (item := self.receive()) is not _END:
            yield cast("_Item", item)


def serve_calls() -> None:
    """Call a function with each item that is received (the program of a subprocess)."""
    function, pipe = _load_task()
    with suppress(EOFError, OSError):  # the parent process has ended
        while True:
            pickled = pipe.recv_bytes()
            try:
                reply = _pickle_result(function(pickle.loads(pickled)))  # noqa: S301  # our own
            except Exception as exc:  # noqa: BLE001  # raised again in the parent process
                reply = _pickle_error(exc)
            pipe.send_bytes(reply)


def serve_items() -> None:
    """Iterate, and send each item (the program of a subprocess)."""
    items, pipe = _load_task()
    try:
        for item in items:
            pipe.send_bytes(_pickle_result(item))
        reply = _pickle_result(_END)
    except Exception as exc:  # noqa: BLE001  # raised again in the parent process
        reply = _pickle_error(exc)
    with suppress(OSError):  # the parent process has ended, or reads no more
        pipe.send_bytes(reply)


def _load_task() -> tuple[Any, Connection]:
    """Open the pipe, and load the function or iterable."""
    pipe = _open_pipe(int(sys.argv[1]))
    task = pickle.loads(pipe.recv_bytes())  # noqa: S301  # from the parent process
    pipe.send_bytes(_pickle_result(None))
    return task, pipe


def _open_pipe(number: int) -> Connection:
    """Open the inherited end of the pipe; programs that this one starts do not inherit it."""
    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection

        os.set_handle_inheritable(number, False)
        return PipeConnection(number)
    os.set_inheritable(number, False)
    return Connection(number)


def _pickle_result(result: object) -> bytes:
    return pickle.dumps((result, None), pickle.HIGHEST_PROTOCOL)


def _pickle_error(error: Exception) -> bytes:
    try:
        return pickle.dumps((None, error), pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001  # any: it has attributes of any kind
        return _pickle_error(WorkerError(f"a subprocess failed: {error!r}"))
