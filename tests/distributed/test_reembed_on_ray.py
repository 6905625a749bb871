"""A change of the model on Ray ends as one by one process, also when it loses workers; with Ray."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from msmarco_qdrant.core.reports import ReembedProgress
from msmarco_qdrant.distributed import reembed_on_ray
from msmarco_qdrant.errors import CollectionNotFoundError, MsmarcoQdrantError, UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.conftest import ROOT
from tests.distributed.reembed_program import ON_RAY, make_new
from tests.loopback import LoopbackServer
from tests.reembed.concurrent import expected_passages, scenario
from tests.reembed.concurrent.proxy import ClientProxy
from tests.reembed.concurrent.test_kill import SWAP, Killer, Moment
from tests.reembed.steps import V2, V3, check_holds, load_old, passages, payloads

ray = pytest.importorskip("ray", reason="needs the extra ray: make integrations")
pytestmark = pytest.mark.usefixtures("cluster")

make_v3 = partial(HashingEncoder, 256, salt="v3")


@pytest.fixture
def store(server: LoopbackServer) -> Iterator[Store]:
    """A collection with thirty passages on a server."""
    with closing(open_store(server.url)) as opened:
        ingest_passages(passages(), opened, collection="things", encoder=V2)
        yield opened


class LostEncoder(HashingEncoder):
    """The new model; its first batch in a worker ends the process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(256, salt="v3")
        self._began = folder / "began"

    def encode_passages(self, passages: Any) -> Any:
        """End the process once."""
        if not self._began.exists():
            self._began.touch()
            os._exit(1)
        return super().encode_passages(passages)


@pytest.mark.slow
def test_it_ends_as_in_one_process_though_it_loses_a_worker(store: Store, tmp_path: Path) -> None:
    """The same points and counts; the second call finds nothing to do."""
    before, seen = payloads(store, "things"), list[ReembedProgress]()
    make = partial(LostEncoder, tmp_path)
    options: dict[str, Any] = {**ON_RAY, "make_encoder": make, "load_old": load_old}
    report = reembed_on_ray(store.dsn, "things", on_progress=seen.append, **options)

    assert (tmp_path / "began").exists()
    check_holds(store, passages(), V3)
    assert before == payloads(store, "things")
    assert ("things__0001", "things__0002", 30) == (report.old, report.new, report.passages)
    assert report.comparison is not None
    assert (30, 30) == (report.comparison.queries, report.comparison.found_after)
    assert [*dict.fromkeys(one.stage for one in seen)] == [
        *("copy", "index", "compare", "verify", "swap", "last pass")
    ]
    again = reembed_on_ray(store.dsn, "things", **options)
    assert ("things__0002", "things__0002", 0) == (again.old, again.new, again.copied)


class OtherInWorkers(HashingEncoder):
    """A model of another content in each process but the driver."""

    def __init__(self, driver: int) -> None:
        super().__init__(256, salt="v3" if os.getpid() == driver else "other")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"address": "ray://localhost:1"}, UsageError, "ray job submit"),
        ({"cpus_per_worker": 9}, UsageError, "no node of the cluster has 9 processors"),
        ({"collection": "nothing"}, CollectionNotFoundError, "nothing"),
        (
            {"make_encoder": partial(OtherInWorkers, os.getpid())},
            MsmarcoQdrantError,
            "than the machine that loaded it first",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    store: Store, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Before a collection is created."""
    given = {"url": store.dsn, "collection": "things", "make_encoder": make_v3, **ON_RAY}
    with pytest.raises(error, match=message):
        reembed_on_ray(**{**given, **options})

    assert ["things__0001"] == [*store.physical_names()]
    assert store.migration_locks.holder("things") is None


@pytest.mark.slow
def test_the_command_changes_the_model(server: LoopbackServer, tmp_path: Path) -> None:
    """With models in directories, which each worker loads."""
    from tests.encoding.tiny_models import Recipe, save_tiny

    old, new = (str(save_tiny(tmp_path / str(n), Recipe(seed=n))) for n in range(2))
    source = tmp_path / "passages.tsv"
    source.write_text("".join(f"{n}\tpassage {n} of london\n" for n in range(40)))
    assert 0 == command("ingest", str(source), "--model", old, "--store", server.url).status
    size = ["--ray-workers", "1", "--ray-cpus", "1", "--ray-gpus", "0"]
    options = ["--store", server.url, "--allow-worse", "--ray", "auto", *size]
    done = command("migrate", "reembed", "--model", new, *options)

    assert 0 == done.status, done.err
    assert f"40 passages with vectors of {new}, 40 newly encoded" in done.out


# ---- kills -----------------------------------------------------------------------------------


def _workers() -> Sequence[psutil.Process]:
    """The workers on the cluster of this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            if any(part.startswith("ray::CopyWorker") for part in process.cmdline()):
                found.append(process)
    return found


@contextmanager
def program(url: str) -> Iterator[subprocess.Popen[str]]:
    """Start the driver in a process of its own, on the cluster of this process."""
    address = ray.get_runtime_context().gcs_address
    command_line = [sys.executable, "-m", "tests.distributed.reembed_program", address, url]
    with subprocess.Popen(
        command_line, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(
    server: LoopbackServer,
    moment: Moment | None,
    act: Callable[[Killer], object] = lambda _seen: None,
) -> Killer:
    """Run the program to its end, or until it is killed."""
    killer = Killer(moment, act)
    with ClientProxy(server, killer) as proxy, program(proxy.url) as process:
        killer.watch(process)
        output, _ = process.communicate()
        assert killer.is_over or process.returncode == 0, output
        proxy.settle()
    return killer


@pytest.mark.slow
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.filterwarnings("ignore")  # of Ray, whose processes end without notice
def test_it_ends_the_same_after_kills_under_traffic(*, is_late: bool) -> None:
    """The driver is killed before or after the swap; the next one loses three workers."""
    rng = random.Random(int(is_late))
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        expected = scenario.fill(store, 100)
        lost: list[int] = []

        def lose_worker(seen: Killer) -> None:
            if len(lost) < 3 and seen.kinds[-1] == "Points.Upsert" and (found := _workers()):
                lost.append(len(found))
                rng.choice(found).kill()

        late = Moment(lambda seen: seen.since_swap == 4, is_applied=True)
        early = Moment(lambda seen: seen.kinds.count("Points.Upsert") == 5, is_applied=True)
        with scenario.start_traffic(store, expected, 1, writers=1, pause_s=0.1) as traffic:
            killed = run(server, late if is_late else early)
            scenario.unlock(store)
            traffic.go_on(1)
            run(server, None, lose_worker)
        assert killed.is_over
        assert (SWAP in killed.kinds) == is_late
        assert is_late or 3 == len(lost)
        expected_passages.check_holds(store, scenario.NAME, expected.passages, scenario.NEW)
        assert store.migration_locks.holder(scenario.NAME) is None
        assert make_new().info == store.metadata(scenario.NAME).encoder
