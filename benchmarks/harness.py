"""Shared parts of the benchmarks: data, subprocesses, tables, the machine's name."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "msmarco_qdrant" / "cli" / "sample"
PACKAGES = ("torch", "sentence-transformers", "qdrant-edge-py")


# ---- data ----------------------------------------------------------------------------------


def data_folder() -> Path:
    """The real MS MARCO passages: `$MSMARCO_QDRANT_DATA/msmarco-47k`, or next to the checkout."""
    folder = _data_wanted()
    if not folder.is_dir():
        sys.exit(f"no data at {folder}: set MSMARCO_QDRANT_DATA")
    return folder


def _data_wanted() -> Path:
    root = Path(os.environ.get("MSMARCO_QDRANT_DATA", ROOT.parent / "shared" / "data"))
    return root / "msmarco-47k"


def data_name() -> str:
    """Return the source of `some_passages`, for the caption of a table."""
    return "MS MARCO passages" if _data_wanted().is_dir() else "passages of the packaged sample"


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
    return read_tsv(SAMPLE / "passages.tsv")[:count]


def some_queries() -> list[str]:
    """The queries of MS MARCO dev if they are here, else those of the packaged sample."""
    folder = _data_wanted()
    path = folder / "queries.dev.tsv" if folder.is_dir() else SAMPLE / "queries.tsv"
    return [query for _, query in read_tsv(path)]


def read_tsv(path: Path) -> list[tuple[str, str]]:
    """The first column and the rest of each line, as anyone would read such a file."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return _rows(file)


def _rows(lines: Iterable[str]) -> list[tuple[str, str]]:
    parts = (line.rstrip("\n").partition("\t") for line in lines)
    return [(first, rest) for first, _, rest in parts]


def command(*arguments: str | Path) -> None:
    """Run a command of ours."""
    program = [sys.executable, "-m", "msmarco_qdrant"]
    subprocess.run([*program, *map(str, arguments)], check=True)


def model_directory(name: str) -> str:
    """Return the folder of a model, or its hub id: the same for every candidate."""
    from msmarco_qdrant.encoding import load_encoder

    return load_encoder(name, device="cpu").location


# ---- engines -------------------------------------------------------------------------------


@contextmanager
def copied_shard(path: Path) -> Iterator[Any]:
    """A copy of a collection of Qdrant Edge, for calls by hand; an engine opens a folder once."""
    import qdrant_edge

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "shard"
        shutil.copytree(path, copy)
        shard = qdrant_edge.EdgeShard.load(str(copy))
        try:
            yield shard
        finally:
            shard.close()


# ---- runs ----------------------------------------------------------------------------------


def run_apart(script: str, *arguments: str) -> dict[str, Any]:
    """Run one candidate of a benchmark in a process of its own; its last line is JSON."""
    done = subprocess.run(
        [sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{Path(script).name} {shlex.join(arguments)} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_in_turn(
    script: str, candidates: Sequence[str], rounds: int, *arguments: str
) -> dict[str, list[dict[str, Any]]]:
    """Run candidates one after the other, round after round: the results of each.

    What slows the machine down for a while is so spread over all of them.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in candidates}
    for number in range(1, rounds + 1):
        for name, runs in results.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr, flush=True)
            runs.append(run_apart(script, f"--candidate={name}", *arguments))
    return results


@contextmanager
def in_background(done: threading.Event, *works: Callable[[], None]) -> Iterator[None]:
    """Run functions in threads while the block runs; at its end set `done` and join them."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def column(runs: Sequence[dict[str, Any]], name: str) -> list[float]:
    """One measured value of each run."""
    return [float(run[name]) for run in runs]


def middle(runs: Sequence[dict[str, Any]], name: str) -> float:
    """The median of one measured value."""
    return statistics.median(column(runs, name))


# ---- tables --------------------------------------------------------------------------------


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median with the least and the greatest."""
    shown = (statistics.median(values), min(values), max(values))
    median, least, greatest = (f"{value:,.{digits}f}" for value in shown)
    return f"{median} ({least} to {greatest})"


class Row(NamedTuple):
    """A row of a table with its raw values.

    Attributes:
        cells: The shown values.
        raw: Every measured value behind them, as JSON takes it.
    """

    cells: Sequence[object]
    raw: object = None


def json_option(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark take `--json FILE`."""
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every measured value there, too"
    )


class Report:
    """A benchmark's tables: Markdown on standard output and, if wanted, a JSON file.

    The file holds `command`, `started` (UTC), `machine`, `versions` and `rows`, each with its
    `table` (a number from 0), the `shown` values by column, and the `raw` values. It is rewritten
    after each table, so that finished tables survive a later failure.

    Args:
        file: Where to write the JSON; None for nowhere.
        packages: Distributions whose versions decide the figures.
    """

    def __init__(self, file: Path | None, packages: Sequence[str] = PACKAGES) -> None:
        self._file = file
        self._versions = {name: version(name) for name in packages}
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._rows: list[dict[str, object]] = []
        self._tables = 0

    def table(self, head: Sequence[str], rows: Iterable[Row]) -> None:
        """Print a table and the machine below it, and write the file."""
        print(f"| {' | '.join(head)} |")
        print(f"|{' --- |' * len(head)}")
        for row in rows:
            cells = [str(cell) for cell in row.cells]
            print(f"| {' | '.join(cells)} |")
            shown = dict(zip(head, cells, strict=True))
            self._rows.append({"table": self._tables, "shown": shown, "raw": row.raw})
        self._tables += 1
        versions = ", ".join(f"{name} {number}" for name, number in self._versions.items())
        print(f"\n{machine()}, {versions}\n", flush=True)
        self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        document = {
            "command": shlex.join(["python", *sys.argv]),
            "started": self._started,
            "machine": machine(),
            "versions": self._versions,
            "rows": self._rows,
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


def machine() -> str:
    """The machine and Python, in one line."""
    return f"{_cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = info.read_text().splitlines()
    name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    flags = next(line for line in lines if line.startswith("flags")).split()
    bf16 = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return f"{name} ({', '.join(bf16) or 'no bf16'})"
