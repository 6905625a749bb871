"""What the benchmarks share: data, the machine's name, runs in processes of their own, tables."""

from __future__ import annotations

import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """The real MS MARCO passages: `$MSMARCO_QDRANT_DATA/msmarco-47k`, or beside the checkout."""
    root = Path(os.environ.get("MSMARCO_QDRANT_DATA", ROOT.parent / "shared" / "data"))
    folder = root / "msmarco-47k"
    if not folder.is_dir():
        sys.exit(f"no data at {folder}: set MSMARCO_QDRANT_DATA")
    return folder


def read_passages(limit: int | None = None) -> list[tuple[str, str]]:
    """Pid and text of the real passages, in the file's order."""
    with gzip.open(
        data_folder() / "collection.tsv.gz", "rt", encoding="utf-8", newline="\n"
    ) as file:
        rows = [line.rstrip("\n").partition("\t")[::2] for line in file]
    return rows[:limit]


def run_apart(script: str, *arguments: str) -> dict[str, Any]:
    """Run one candidate of a benchmark in a process of its own; its last line is JSON."""
    done = subprocess.run(
        [sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine() -> str:
    """The machine and the versions that decide a figure, in one line."""
    names = ("torch", "sentence-transformers", "qdrant-edge-py")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{_cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = info.read_text().splitlines()
    name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    flags = next(line for line in lines if line.startswith("flags")).split()
    bf16 = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return f"{name} ({', '.join(bf16) or 'no bf16'})"


def spread(values: Sequence[float]) -> str:
    """Median with the least and the greatest."""
    return f"{statistics.median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Markdown table on standard output."""
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    print(f"\n{machine()}\n")
