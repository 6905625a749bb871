"""Results of measurements on this machine, in files of the user's cache.

A file is named by a digest of its subject, such as a model, of the machine, and of the code of
`encoding`. If it cannot be read or written, the next start measures again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# At the top: this module is imported when a model is loaded.
import torch

from msmarco_qdrant import __version__
from msmarco_qdrant.encoding.backends import processor
from msmarco_qdrant.encoding.backends.cache import mark_used, model_cache, prune
from msmarco_qdrant.encoding.backends.threads import single_threads
from msmarco_qdrant.encoding.file_digests import code_sha256
from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.runtime.atomic_file import atomic_write

_log = logging.getLogger(__name__)

_KEPT_FILES = 64
# Rounds end after so many seconds.
_SECONDS = 1.0
_MIN_ROUNDS, _MAX_ROUNDS = 2, 8


@dataclass(frozen=True, slots=True)
class Choice:
    """The result of a measurement.

    Attributes:
        precision: The fastest precision.
        tokens_per_second: Of each precision that was measured, by its name.
    """

    precision: str
    tokens_per_second: Mapping[str, float]

    def __str__(self) -> str:
        rates = [f"{name} {rate:,.0f}" for name, rate in self.tokens_per_second.items()]
        return f"{self.precision} (tokens per second and core: {', '.join(rates)})"

    @classmethod
    def of(cls, rates: Mapping[str, float]) -> Choice:
        """Choose the precision with the highest rate."""
        return cls(max(rates, key=rates.__getitem__), rates)


def recall_choice(subject: str, precisions: Sequence[str], measure: Callable[[], Choice]) -> Choice:
    """Return the choice that was measured on this machine before, or measure it.

    Args:
        subject: Identifies what is measured.
        precisions: The precisions that may be chosen.
        measure: Measures them.
    """
    path = locate_measurement("choices", f"{subject}.json")
    found = _read(path)
    if found is None or found.precision not in precisions:
        found = measure()
        save_measurement(path, json.dumps(asdict(found)).encode())
    mark_used(path)
    return found


def measure_rates(
    calls: Mapping[str, Callable[[], object]],
    tokens: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return tokens per second of each call, by its name, on one core.

    Args:
        calls: The calls.
        tokens: Number of tokens that each computes.
        clock: Seconds of the clock.
    """
    with single_threads(1, "measure") as pool:
        least = pool.submit(_least_seconds, calls, clock).result()
    return {name: tokens / seconds for name, seconds in least.items()}


def _least_seconds(
    calls: Mapping[str, Callable[[], object]], clock: Callable[[], float]
) -> dict[str, float]:
    """Return the least seconds of each call, in alternating rounds.

    Other work on the machine only adds to them.
    """
    least = dict.fromkeys(calls, float("inf"))
    end = clock() + _SECONDS
    for number in range(_MAX_ROUNDS):
        if number >= _MIN_ROUNDS and clock() > end:
            break
        for name, call in calls.items():
            started = clock()
            call()
            least[name] = min(least[name], clock() - started)
    return least


# ---- the files -------------------------------------------------------------------------------


def locate_measurement(kind: str, subject: str) -> Path:
    """Return the path for a subject on this machine: its processor, its cores, and the code.

    Args:
        kind: Name of the folder.
        subject: Identifies what is measured; its suffix becomes that of the file.
    """
    found = processor.detect()
    parts = [
        *(subject, __version__, torch.__version__, platform.platform()),
        *(found.architecture, found.name, *sorted(found.features)),
        str(processor.usable_cores()),
        code_sha256(),
    ]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return model_cache(kind) / f"{digest}{Path(subject).suffix}"


def save_measurement(path: Path, content: bytes) -> None:
    """Write a file, and remove those that were not used for the longest time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)
        prune(path.parent, f"*{path.suffix}", _KEPT_FILES)
    except (OSError, OutputError) as exc:
        _log.info("cannot write %s, so the next start measures again: %s", path, exc)


def _read(path: Path) -> Choice | None:
    """Return the choice in a file; None without a whole one."""
    try:
        found = json.loads(path.read_text("utf-8"))
        rates = {str(name): float(rate) for name, rate in found["tokens_per_second"].items()}
        precision = found["precision"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return Choice(precision, rates) if precision in rates else None
