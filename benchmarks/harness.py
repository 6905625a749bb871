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
SAMPLE = ROOT / "msmarco_qdrant" / "sample"
PACKAGES = ("torch", "sentence-transformers", "qdrant-edge-py")


def data_folder() -> Path:
    """The real MS MARCO passages: `$MSMARCO_QDRANT_DATA/msmarco-47k`, or beside the checkout."""
    folder = _data_wanted()
    if not folder.is_dir():
        sys.exit(f"no data at {folder}: set MSMARCO_QDRANT_DATA")
    return folder


def _data_wanted() -> Path:
    root = Path(os.environ.get("MSMARCO_QDRANT_DATA", ROOT.parent / "shared" / "data"))
    return root / "msmarco-47k"


def read_passages(limit: int | None = None) -> list[tuple[str, str]]:
    """Pid and text of the real passages, in the file's order."""
    with gzip.open(
        data_folder() / "collection.tsv.gz", "rt", encoding="utf-8", newline="\n"
    ) as file:
        return _rows(file)[:limit]


def some_passages(count: int) -> list[tuple[str, str]]:
    """The first real passages if they are here, else the 300 of the packaged sample; or fewer."""
    if _data_wanted().is_dir():
        return read_passages(count)
    print(f"no data at {_data_wanted()}: taking the packaged sample", file=sys.stderr)
    with (SAMPLE / "passages.tsv").open(encoding="utf-8", newline="\n") as file:
        return _rows(file)[:count]


def some_queries() -> list[str]:
    """The phrases of MS MARCO dev if they are here, else those of the packaged sample."""
    folder = _data_wanted()
    path = folder / "queries.dev.tsv" if folder.is_dir() else SAMPLE / "queries.tsv"
    with path.open(encoding="utf-8", newline="\n") as file:
        return [phrase for _, phrase in _rows(file)]


def _rows(lines: Iterable[str]) -> list[tuple[str, str]]:
    parts = (line.rstrip("\n").partition("\t") for line in lines)
    return [(first, rest) for first, _, rest in parts]


def run_apart(script: str, *arguments: str) -> dict[str, Any]:
    """Run one candidate of a benchmark in a process of its own; its last line is JSON."""
    done = subprocess.run(
        [sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine(packages: Sequence[str] = PACKAGES) -> str:
    """The machine and the versions that decide a figure, in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
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


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median with the least and the greatest."""
    shown = (statistics.median(values), min(values), max(values))
    median, least, greatest = (f"{value:,.{digits}f}" for value in shown)
    return f"{median} ({least} to {greatest})"


def print_table(
    head: Sequence[str], rows: Iterable[Sequence[object]], packages: Sequence[str] = PACKAGES
) -> None:
    """A Markdown table on standard output, and the machine, with the versions of some packages."""
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    print(f"\n{machine(packages)}\n")
