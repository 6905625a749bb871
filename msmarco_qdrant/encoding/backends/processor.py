"""Capabilities of this machine's processor that decide how models run on it.

This is the only module that asks for them. Callers import the module and call
`processor.detect()`, so a replacement of that one function describes another processor.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

_FAST_IN_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})
_INT8 = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})
_ROOT = Path("/")
_AVX512_OF_ONEDNN = frozenset({"avx512_bw", "avx512_vl", "avx512_dq"})


@dataclass(frozen=True, slots=True)
class Processor:
    """A CPU.

    Attributes:
        architecture: Such as "x86_64" or "aarch64".
        features: Instruction sets, named as in `torch.cpu.get_capabilities`.
        name: The vendor's name for it; empty if unknown.
    """

    architecture: str
    features: frozenset[str] = frozenset()
    name: str = ""

    @property
    def is_fast_in_bfloat16(self) -> bool:
        """True if it multiplies bfloat16 faster than float32."""
        return bool(_FAST_IN_BFLOAT16 & self.features)

    @property
    def multiplies_int8(self) -> bool:
        """True if it sums products of 8 bits in 32 bits at once."""
        return bool(_INT8 & self.features)

    @property
    def packs_float32(self) -> bool:
        """True if oneDNN computes float32 fast from weights in its own layout.

        Measured with AVX2 and AVX-512; on others plain products stay.
        """
        return self.architecture == "x86_64" and "avx2" in self.features

    @property
    def packs_bfloat16(self) -> bool:
        """True if oneDNN can lay out bfloat16 weights for it."""
        return "avx_ne_convert" in self.features or self.features >= _AVX512_OF_ONEDNN


@cache
def detect() -> Processor:
    """Return the processor of this machine; one without features if torch cannot describe it."""
    import torch

    if not hasattr(torch.cpu, "get_capabilities"):
        return Processor("unknown")
    found = torch.cpu.get_capabilities()
    return Processor(
        architecture=found.get("architecture", "unknown"),
        features=frozenset(name for name, value in found.items() if value is True),
        name=found.get("cpu_name", ""),
    )


def usable_cores() -> int:
    """Return the number of cores that this process may use: affinity, and limits of its cgroups."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(math.ceil(min([cores, *_limits_of_cgroups()])), 1)


def _limits_of_cgroups() -> Iterator[float]:
    """Yield the cores that each limited cgroup of this process allows, in version 1 or 2.

    In a container, the listed path may be one of the host that cannot be read; the container's own
    limit is then in the top folder.
    """
    try:
        lines = (_ROOT / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = _ROOT / "sys/fs/cgroup" / ("cpu" if controllers else "")
        inner = PurePosixPath(path.lstrip("/"))
        for folder in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # no such folder, or "max"
                yield _limit_of(top / folder, is_first_version=bool(controllers))


def _limit_of(folder: Path, *, is_first_version: bool) -> float:
    if is_first_version:
        quota = (folder / "cpu.cfs_quota_us").read_text("ascii")  # -1 for none
        period = (folder / "cpu.cfs_period_us").read_text("ascii")
    else:
        quota, period = (folder / "cpu.max").read_text("ascii").split()
    return int(quota) / int(period) if int(quota) > 0 else math.inf
