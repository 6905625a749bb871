"""Time and size of backups and restores, on Edge and on the tests' Qdrant server.

Synthetic passages with vectors of 64 floats are ingested into an Edge store and into a server on
loopback, which is the tests' own, in Python: it tells nothing of a real one's speed. Each backup is
restored, and every query of a sample must have the same scores before and after.

    python benchmarks/backup.py [--passages 47283] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from harness import Report, Row, json_option

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from msmarco_qdrant.collection.backup import backup_collection  # noqa: E402  # needs the path
from msmarco_qdrant.collection.create import drop_collection  # noqa: E402
from msmarco_qdrant.collection.restore import restore_collection  # noqa: E402
from msmarco_qdrant.stores import Store, open_store  # noqa: E402
from tests.backups import check_same_answers, fill, many_passages  # noqa: E402
from tests.loopback import LoopbackServer  # noqa: E402
from tests.loopback.engine import Engine  # noqa: E402

PACKAGES = ("qdrant-edge-py", "qdrant-client")
_MIB = 2**20


class Way(NamedTuple):
    """A backup and its restore: the two stores, and if the backup is portable."""

    source: str
    target: str
    portable: bool


WAYS = (
    Way("Edge", "Edge", portable=False),
    Way("Edge", "server", portable=False),
    Way("Edge", "server", portable=True),
    Way("server", "server", portable=False),
    Way("server", "Edge", portable=True),
)


def measure(way: Way, stores: dict[str, Store], folder: Path, count: int) -> Row:
    """Back up and restore one way, and compare the answers."""
    source, target = stores[way.source], stores[way.target]
    saved = backup_collection(source, "passages", folder, portable=way.portable)
    restored = restore_collection(target, folder, name="copy")
    if not count == saved.passages == restored.passages:
        raise SystemExit(f"{way}: {saved.passages:,} and {restored.passages:,} of {count:,}")
    check_same_answers(source, "passages", target, "copy")
    drop_collection(target, "copy")
    allocated = sum(file.lstat().st_blocks * 512 for file in folder.rglob("*"))
    cells = (
        f"{way.source} to {way.target}",
        saved.kind,
        f"{saved.seconds:.1f}",
        f"{restored.seconds:.1f}",
        f"{allocated / _MIB:.0f}",
    )
    return Row(cells, {"backup": saved.seconds, "restore": restored.seconds, "bytes": allocated})


def count_all(self: Engine, name: str, key: str) -> int:  # noqa: ARG001  # every point has both
    """Count the points of an index: the tests' server would look at each again for each answer."""
    return self.count(name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every way once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=47_283)
    json_option(parser)
    options = parser.parse_args(arguments)
    report = Report(options.json, PACKAGES)
    Engine.indexed_points = count_all  # type: ignore[method-assign]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(LoopbackServer(adjacent=True))
        stores: dict[str, Store] = {
            "Edge": stack.enter_context(closing(open_store(folder / "edge", create=True))),
            "server": stack.enter_context(closing(open_store(server.url))),
        }
        for store in stores.values():
            fill(store, "passages", many_passages(options.passages))
        rows = []
        for number, way in enumerate(WAYS):
            rows.append(measure(way, stores, folder / f"saved {number}", options.passages))
            print(*rows[-1].cells, sep=", ", file=sys.stderr, flush=True)
    head = (f"{options.passages:,} passages", "kind", "backup s", "restore s", "MiB on disk")
    report.table(head, rows)


if __name__ == "__main__":
    main()
