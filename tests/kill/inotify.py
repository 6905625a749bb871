"""What happens in directories, told by the kernel (Linux) the moment that it happens."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x2, 0x8, 0x40, 0x80
_CREATE, _DELETE, _IS_DIRECTORY = 0x100, 0x200, 0x40000000
_MASK = _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_HEAD = struct.Struct("iIII")
_BUFFER_BYTES = 1 << 16


class Watch:
    """Calls a function for each event in some directories and all that lie in them.

    Args:
        saw: Called in a thread of its own with the directory; not for what only is read there.
        places: The directories; they must be there.
    """

    def __init__(self, saw: Callable[[Path], object], *places: Path) -> None:
        self._saw = saw
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify is not to be had")
        self._end, self._ended = os.pipe()
        self._places: dict[int, Path] = {}
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        for place in places:
            for directory, _, _ in os.walk(place):
                self._add(Path(directory))

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell nothing any more."""
        os.close(self._ended)
        self._thread.join()
        os.close(self._fd)
        os.close(self._end)

    def _add(self, directory: Path) -> None:
        number = self._libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK)
        if number >= 0:  # else it has gone
            self._places[number] = directory

    def _run(self) -> None:
        while self._end not in select.select([self._fd, self._end], [], [])[0]:
            events = os.read(self._fd, _BUFFER_BYTES)
            start = 0
            while start < len(events):
                number, mask, _, length = _HEAD.unpack_from(events, start)
                name = events[start + _HEAD.size : start + _HEAD.size + length].rstrip(b"\0")
                start += _HEAD.size + length
                self._tell(number, mask, os.fsdecode(name))

    def _tell(self, number: int, mask: int, name: str) -> None:
        directory = self._places.get(number)
        if directory is None or not mask & _MASK:
            return
        if mask & _IS_DIRECTORY and mask & _CREATE:
            self._add(directory / name)
        self._saw(directory)


@contextmanager
def watching(saw: Callable[[Path], object], *places: Path) -> Iterator[None]:
    """Watch directories meanwhile; see `Watch`."""
    watch = Watch(saw, *places)
    watch.start()
    try:
        yield
    finally:
        watch.stop()
