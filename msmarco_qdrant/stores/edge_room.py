"""Whether there is room on the disk for what Edge is about to write.

Edge writes through memory maps of files that take their room only when a page is first written: on
a full disk that is no error but a signal (SIGBUS), which ends the process. So it is asked before.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from msmarco_qdrant.errors import StoreUnavailableError

SPARE_BYTES = 256 * 2**20
"""A write of 1,024 passages takes twice what they hold, for the log and for the segment: some
10 MiB as a rule, and 210 MiB if each has 100,000 characters of ASCII (both reckoned)."""

_GRAPHS = "links*.bin"
_BLOCK_BYTES = 512  # the unit of `st_blocks`, on whatever file system
_MIB = 2**20


def check_room(place: Path, action: str, size: int = 0) -> None:
    """Refuse what may not fit on the disk.

    Args:
        place: A directory on it.
        action: What is to be done ("writing points").
        size: How many bytes it takes, if more than a batch's.

    Raises:
        StoreUnavailableError: If there is less room than that and `SPARE_BYTES`.
        OSError: If the system does not tell.
    """
    needed, free = SPARE_BYTES + size, shutil.disk_usage(place).free
    if free < needed:
        raise StoreUnavailableError(
            f"{action} in {place} needs {_mib(needed)} MiB of free room on its disk, and there are "
            f"{free // _MIB}: free {_mib(needed - free)} MiB"
        )


def unindexed_bytes(segments: Path) -> int:
    """About what a build of indexes writes: the size of the segments that have no graph yet.

    Raises:
        OSError: If they cannot be read.
    """
    return sum(_taken(one) for one in segments.iterdir() if not any(one.rglob(_GRAPHS)))


def _taken(place: Path) -> int:
    """The bytes that files take on the disk, which for sparse files are fewer than their size."""
    return sum(file.lstat().st_blocks * _BLOCK_BYTES for file in place.rglob("*"))


def _mib(size: int) -> int:
    return -(-size // _MIB)
