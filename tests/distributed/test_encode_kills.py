"""`kill -9` of the driver of an encode on Ray: what resumes it ends in the files of one process.

A seed decides how many shards there are by then, and how long after the last. The workers of a
killed driver may still write while the next run begins.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.file_path import FilePath, to_path
from msmarco_qdrant.sources.shard_file import MANIFEST, shard_paths
from msmarco_qdrant.sources.vector_shards import VectorShards
from tests.distributed import encode_driver
from tests.distributed.encode_driver import ALONE
from tests.distributed.kills import write_source
from tests.distributed.ray_environment import ray_environment
from tests.distributed.s3_server import BUCKET, s3_server

pytest.importorskip("ray", reason="needs the extra ray: make integrations")

PASSAGES = 1500
KILLS = 4
HAS_S3 = all(find_spec(name) is not None for name in ("s3fs", "moto"))
NEEDS_S3 = pytest.mark.skipif(not HAS_S3, reason="needs the extra s3: make integrations")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one node, whose workers find a server of S3 where its extra is installed."""
    from ray.cluster_utils import Cluster

    with ray_environment() as patch, ExitStack() as stack:
        if HAS_S3:
            for name, value in stack.enter_context(s3_server()).items():
                patch.setenv(name, value)
            stack.callback(make_bucket().clear_instance_cache)
        head = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield cluster.address
        cluster.shutdown()


def make_bucket() -> Any:
    """Make the bucket of the server; returns its file system."""
    import s3fs

    files = s3fs.S3FileSystem()
    files.mkdir(BUCKET)
    return files


def start(by: str, source: Path, folder: FilePath) -> subprocess.Popen[str]:
    """Start an encode: on a cluster, or by one process."""
    command = [sys.executable, "-m", encode_driver.__name__, by, str(source), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def finish(by: str, source: Path, folder: FilePath) -> str:
    """Encode without a kill; return what it prints."""
    process = start(by, source, folder)
    output, _ = process.communicate()
    assert 0 == process.returncode
    return output.splitlines()[-1]


def kill_once(
    process: subprocess.Popen[str], folder: FilePath, shards: int, after_s: float
) -> bool:
    """Kill an encode so many seconds after there are so many shards; True if it had not ended."""
    while process.poll() is None and len(shard_paths(folder)) < shards:
        time.sleep(0.005)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    return process.returncode != 0


def files_of(folder: FilePath) -> dict[str, bytes]:
    """All files but those that a killed write left."""
    return {path.name: path.read_bytes() for path in [*shard_paths(folder), folder / MANIFEST]}


def assert_honest(folder: FilePath, expected: dict[str, bytes]) -> None:
    """What a killed run left is a part of the whole, and is not loaded as the whole."""
    for path in shard_paths(folder):
        assert expected[path.name] == path.read_bytes()
    if not (folder / MANIFEST).exists():
        with pytest.raises(SourceError):
            VectorShards(str(folder))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray, whose processes end without notice
@pytest.mark.parametrize(
    ("place", "last"),
    [("disk", "ray"), ("disk", ALONE), pytest.param("s3", "ray", marks=NEEDS_S3)],
)
def test_a_killed_driver_is_resumed(address: str, tmp_path: Path, place: str, last: str) -> None:
    """By the same command and by one process, each of them killed, and at last by `last`."""
    rng = random.Random(f"{place} {last}")
    source = tmp_path / "passages.tsv"
    write_source(source, PASSAGES, rng)
    counts = finish(ALONE, source, tmp_path / "usual")
    expected = files_of(tmp_path / "usual")
    total, folder = len(expected) - 1, to_path(tmp_path / "vectors")
    if place == "s3":
        folder = to_path(f"s3://{BUCKET}/{last}")
    kills = 0
    for number in range(KILLS):
        shards = total * number // (KILLS - 1)  # at last before the manifest is written
        after_s = rng.random() * (0 if shards == total else 0.1 if shards else 3)
        process = start(ALONE if number == 1 else address, source, folder)
        kills += kill_once(process, folder, shards, after_s)
        assert_honest(folder, expected)
    assert counts == finish(address if last == "ray" else ALONE, source, folder)
    assert expected == files_of(folder)
    assert kills >= KILLS - 1, "the encodes end before they are killed"
    print(f"{kills} kills, {total} shards")
