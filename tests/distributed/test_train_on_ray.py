"""Mining and judging on Ray end as those by one process, also when they lose workers; with Ray."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.distributed import judge_on_ray, mine_on_ray
from msmarco_qdrant.distributed.clients import ClientSettings
from msmarco_qdrant.distributed.judge_worker import JudgeSettings, JudgeWorker
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.errors import (
    ModelMismatchError,
    ModelNotFoundError,
    MsmarcoQdrantError,
    UsageError,
    WeakJudgeError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Connection
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from msmarco_qdrant.train import (
    JudgeReport,
    MinedQuery,
    MineReport,
    judge_negatives,
    mine,
    mine_negatives,
    read_negatives,
)
from tests.cli.runner import command
from tests.loopback import LoopbackServer
from tests.train.small_collection import ENCODER, PASSAGES, QRELS, QUERIES, mined

ray = pytest.importorskip("ray", reason="needs the extra ray: make integrations")
pytestmark = pytest.mark.usefixtures("cluster")

POSITIVES = {query.qid: [*QRELS[query.qid]] for query in QUERIES}
TRAIN, DEV = QUERIES[:40], QUERIES[40:]
MODES: Sequence[SearchMode] = ("dense", "bm25", "hybrid")
SMALL: dict[str, Any] = {"workers": 2, "cpus_per_worker": 0.5, "gpus_per_worker": 0}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with the small collection."""
    with LoopbackServer() as server:
        ingest_passages([*PASSAGES.items()], server.url, encoder=ENCODER)
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[SearchClient]:
    """A client of this process."""
    with SearchClient.open(url, encoder=ENCODER) as opened:
        yield opened


class LostEncoder(HashingEncoder):
    """The collection's encoder, whose first query ends the process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(dimension=6)
        self._began = folder / "began"

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """End the process once."""
        end_once(self._began)
        return super().encode_queries(queries)


class LostJudge(WordOverlapReranker):
    """A judge whose first call for a training query ends the process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._began = folder / "began"

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """End the process once."""
        if pairs[0][0] == TRAIN[0].text:
            end_once(self._began)
        return super().scores(pairs)


def end_once(began: Path) -> None:
    """End the process without notice, unless that was done."""
    if not began.exists():
        began.touch()
        os.kill(os.getpid(), signal.SIGKILL)


make_encoder = partial(HashingEncoder, dimension=6)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a complete folder; the report without its time."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    report = json.loads(found.pop("report.json"))
    return {**found, "report.json": json.dumps({**report, "seconds": 0}).encode()}


# ---- mine ------------------------------------------------------------------------------------


def mine_small(url: str, out: Path, **options: Any) -> MineReport:
    """Mine on Ray."""
    given = {"make_encoder": make_encoder, "modes": MODES, "depth": 20, **SMALL, **options}
    return mine_on_ray(url, iter(QUERIES), POSITIVES, out, **given)


@pytest.fixture
def expected(
    client: SearchClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    """The files of mining by one process, in seven parts instead of one."""
    monkeypatch.setattr(mine, "QUERIES_PER_PART", 9)
    mine_negatives(client, QUERIES, POSITIVES, tmp_path / "one", modes=MODES, depth=20)
    return files_of(tmp_path / "one")


def test_mining_writes_the_files_of_one_process(
    url: str, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """Though it loses a worker; its progress has the total, and a second call changes nothing."""
    shown: list[tuple[int, int]] = []
    report = mine_small(
        url,
        tmp_path / "ray",
        make_encoder=partial(LostEncoder, tmp_path),
        on_progress=lambda *done: shown.append(done),
    )

    assert (tmp_path / "began").exists()
    assert expected == files_of(tmp_path / "ray")
    assert [60] * 7 == [total for _, total in shown]
    assert 60 == shown[-1][0]
    assert report == mine_small(url, tmp_path / "ray")


class StopError(Exception):
    """Ends a call as its driver would end."""


def stop(_done: int, _total: int) -> None:
    """End the call after its first part."""
    raise StopError


@pytest.mark.parametrize("first", ["ray", "one"])
def test_either_way_resumes_the_other(
    first: str, url: str, client: SearchClient, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """Finished parts are not searched again: what is put in their place is in the file."""
    out = tmp_path / "out"
    here = partial(mine_negatives, client, QUERIES, POSITIVES, out, modes=MODES, depth=20)
    there = partial(mine_small, url, out)
    calls: list[Callable[..., MineReport]] = [there, here] if first == "ray" else [here, there]
    with pytest.raises(StopError):
        calls[0](on_progress=stop if first == "ray" else stop_at_second_part)
    kept: list[bytes] = []
    for part in (out / "parts").glob("*.part"):
        head, _, data = part.read_bytes().partition(b"\n")
        kept += gzip.decompress(data).splitlines()
        part.write_bytes(head + b"\n" + gzip.compress(b""))
    calls[1]()

    found = gzip.decompress((out / "negatives.jsonl.gz").read_bytes()).splitlines()
    whole = gzip.decompress(expected["negatives.jsonl.gz"]).splitlines()
    assert len(kept) >= 9
    assert sorted(whole) == sorted(found + kept)


def stop_at_second_part(done: int, _total: int) -> None:
    """End the call."""
    if done > 9:
        raise StopError


DRIVER = """
import os, signal, sys
from tests.distributed.test_train_on_ray import mine, mine_small
from pathlib import Path
mine.QUERIES_PER_PART = 9
end = lambda _done, _total: os.kill(os.getpid(), signal.SIGKILL)
mine_small(sys.argv[1], Path(sys.argv[2]), address=sys.argv[3], on_progress=end)
"""


@pytest.mark.slow
def test_a_killed_driver_loses_no_part(
    url: str, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """The same call goes on with the parts that were written; the lock of the folder is free."""
    address = ray.get_runtime_context().gcs_address
    words = [sys.executable, "-c", DRIVER, url, str(tmp_path / "out"), address]
    assert -signal.SIGKILL == subprocess.run(words, check=False).returncode
    assert 1 == len([*(tmp_path / "out" / "parts").glob("*.part")])
    mine_small(url, tmp_path / "out")

    assert expected == files_of(tmp_path / "out")


def test_words_need_no_model(url: str, client: SearchClient, tmp_path: Path) -> None:
    """BM25 alone loads none; a query without positives is left out and counted."""
    queries = [*QUERIES[:5], Query("none", "tea")]
    for out in ("one", "ray"):
        mine_ = (
            partial(mine_negatives, client)
            if out == "one"
            else partial(mine_on_ray, url, **{**SMALL, "gpus_per_worker": None})
        )
        report = mine_(queries, POSITIVES, tmp_path / out, modes=["bm25"], depth=5)
        assert (5, 1, 55) == (report.queries, report.without_positives, report.without_query)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "ray")


def test_a_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """Until its time is over; the parts before are kept, and the same call resumes."""
    with LoopbackServer() as server:
        ingest_passages([*PASSAGES.items()], server.url, encoder=ENCODER)
        away = Connection(retry_s=0.2, timeout_s=2)

        def lose(_done: int, _total: int) -> None:
            server.stop()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mine, "QUERIES_PER_PART", 9)
            with pytest.raises(MsmarcoQdrantError):
                mine_small(server.url, tmp_path / "out", connection=away, on_progress=lose)
            server.start()
            report = mine_small(server.url, tmp_path / "out")
    assert report.queries == len([*read_negatives(tmp_path / "out")]) == 60


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"url": "./folder"}, UsageError, "mining on Ray needs the URL of a server, as other mach"),
        ({"url": ":memory:"}, UsageError, "mining on Ray needs the URL of a server"),
        ({"address": "ray://localhost:1"}, UsageError, "ray job submit"),
        ({"address": "nowhere"}, UsageError, "auto, local or HOST:PORT"),
        ({"workers": 0}, UsageError, "workers must be an integer of 1 or more, got 0"),
        ({"cpus_per_worker": 0}, UsageError, "must be more than 0"),
        ({"gpus_per_worker": -1}, UsageError, "must be 0 or more"),
        ({"depth": 0}, UsageError, "depth must be 1 to 10,000, got 0"),
        ({"first_rank": 30}, UsageError, r"first_rank must be 1 to depth \(20\), got 30"),
        ({"modes": []}, UsageError, "modes must be a list"),
        ({"model": "m"}, UsageError, "either model=... or make_encoder"),
        ({"encoder_options": "cpu"}, UsageError, "encoder_options need a model to load"),
        ({"make_encoder": HashingEncoder()}, UsageError, "must be a function .* got a Hashing"),
        ({"also": "other"}, UsageError, "also must be a list of collections, got 'other'"),
        ({"also": ["msmarco"]}, UsageError, "other collections than 'msmarco', got it twice"),
        ({"tenant": "a"}, UsageError, "has no tenant field, got the tenant 'a'"),
        ({"positives": {"q1": ("x",)}}, UsageError, "none of the 1 relevant passages"),
        ({"positives": {"x": ("p1",)}}, UsageError, "none of the 60 queries has a positive"),
        ({"cpus_per_worker": 9}, UsageError, "no node of the cluster has 9 processors"),
        (
            {"make_encoder": HashingEncoder},
            ModelMismatchError,
            "This is so on .*: copy the same files to every machine",
        ),
        (
            {"make_encoder": None, "model": "/no/such/model"},
            ModelNotFoundError,
            "no model directory at /no/such/model .* on .*: copy the same files to every machine",
        ),
    ],
)
def test_mining_refuses_invalid_arguments(
    url: str, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Each in one line, and without a folder that a second call would find begun."""
    given = {
        "url": url,
        "queries": QUERIES,
        "positives": POSITIVES,
        "make_encoder": make_encoder,
        "depth": 20,
        **SMALL,
        **options,
    }
    with pytest.raises(error, match=message):
        mine_on_ray(out=tmp_path / "out", **given)

    assert not (tmp_path / "out" / "settings.json").exists()


# ---- judge -----------------------------------------------------------------------------------


@pytest.fixture
def candidates(client: SearchClient) -> list[MinedQuery]:
    """Mined queries, of which one has a passage that the collection lacks."""
    first, *others = mined(client, TRAIN)
    lacking = {"dense": (*first.negatives["dense"], "lost")}
    return [replace(first, negatives=lacking), *others]


def judge_small(
    url: str, candidates: Sequence[MinedQuery], out: Path, judge: Any, **options: Any
) -> JudgeReport:
    """Judge on Ray."""
    given = {"dev_queries": DEV, "dev_qrels": QRELS, "make_encoder": make_encoder}
    return judge_on_ray(judge, url, TRAIN, candidates, out, **{**given, **SMALL, **options})


@pytest.mark.parametrize("judge", [WordOverlapReranker, partial(HashingEncoder, 500)])
def test_judging_writes_the_files_of_one_process(
    judge: Callable[[], Any],
    url: str,
    client: SearchClient,
    candidates: list[MinedQuery],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By a cross-encoder that loses a worker, and by a bi-encoder; either way resumes the other."""
    monkeypatch.setattr("msmarco_qdrant.train.judge_parts.split_parts.__defaults__", (100,))
    judge_negatives(
        judge(), client, TRAIN, candidates, tmp_path / "one", dev_queries=DEV, dev_qrels=QRELS
    )
    is_pairs = judge is WordOverlapReranker
    lost = partial(LostJudge, tmp_path) if is_pairs else judge
    caplog.clear()
    report = judge_small(url, candidates, tmp_path / "ray", lost, gpus_per_worker=0.5)

    assert is_pairs == (tmp_path / "began").exists()
    assert files_of(tmp_path / "one") == files_of(tmp_path / "ray")
    assert 1 == report.missing
    assert 1 == caplog.text.count("the collection 'msmarco' lacks the passage 'lost'")
    assert report == judge_small(url, candidates, tmp_path / "ray", judge)
    with monkeypatch.context() as patch:
        patch.setattr("msmarco_qdrant.train.judge.write_scores", stop)
        with pytest.raises(StopError):
            judge_small(url, candidates, tmp_path / "out", judge)
    next((tmp_path / "out" / "parts").glob("00000003-*.parquet")).unlink()
    judge_negatives(
        judge(), client, TRAIN, candidates, tmp_path / "out", dev_queries=DEV, dev_qrels=QRELS
    )
    assert files_of(tmp_path / "one") == files_of(tmp_path / "out")


def test_a_weak_judge_is_refused(url: str, candidates: list[MinedQuery], tmp_path: Path) -> None:
    """With the figures of one process; its check is kept."""
    weak = partial(HashingEncoder, 4, salt="x")
    with pytest.raises(WeakJudgeError, match=r"of the search \(20 dev queries, p = "):
        judge_small(url, candidates, tmp_path / "out", weak)
    report = judge_small(url, candidates, tmp_path / "out", weak, allow_weak=True)
    assert not report.check.is_better


@pytest.mark.parametrize(
    ("judge", "options", "error", "message"),
    [
        (WordOverlapReranker, {"url": "./folder"}, UsageError, "judging on Ray needs the URL of a"),
        (WordOverlapReranker, {"workers": 0}, UsageError, "workers must be an integer of 1"),
        (WordOverlapReranker, {"depth": 0}, UsageError, "depth must be 1 to 10,000, got 0"),
        (WordOverlapReranker(), {}, UsageError, "judge must be the location .* got a WordOverlap"),
        (dict, {}, UsageError, "judge must be a cross-encoder or a bi-encoder, got dict"),
        (
            "/no/such/judge",
            {},
            ModelNotFoundError,
            "no model directory at /no/such/judge .* on .*: copy the same files to every machine",
        ),
        (
            WordOverlapReranker,
            {"candidates": [MinedQuery("q0", ("x",), {"dense": ("y",)})]},
            UsageError,
            "has none of the pids, such as 'x'",
        ),
        (
            WordOverlapReranker,
            {"candidates": [MinedQuery("q50", ("p50",), {"dense": ("p1",)})]},
            UsageError,
            "got none of 'q50'",
        ),
    ],
)
def test_judging_refuses_invalid_arguments(
    url: str,
    candidates: list[MinedQuery],
    tmp_path: Path,
    judge: Any,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """Each in one line."""
    given = {"url": url, "candidates": candidates, **options}
    with pytest.raises(error, match=message):
        judge_small(judge=judge, out=tmp_path / "out", **given)


def test_a_machine_with_another_judge_is_refused(url: str) -> None:
    """Scores of two judges are never mixed."""
    models = ModelChoice.of(None, None)
    clients = ClientSettings(url, Connection(), models, make_encoder, "msmarco")
    settings = JudgeSettings(WordOverlapReranker, clients, "dense", 100, None)
    info = JudgeWorker(settings).load()
    JudgeWorker(settings).begin(info)
    with pytest.raises(ModelMismatchError, match="has another word-overlap than the machine"):
        JudgeWorker(settings).begin(replace(info, identity={**info.identity, "precision": "int"}))


# ---- the commands ----------------------------------------------------------------------------


def test_the_commands_refuse_a_directory_and_options_of_one_process(tmp_path: Path) -> None:
    """In the words of the command."""
    for name in ("queries.tsv", "qrels.txt"):
        (tmp_path / name).write_text("1\ttext\n" if name == "queries.tsv" else "1 0 2 1\n")
    files = [str(tmp_path / name) for name in ("queries.tsv", "qrels.txt")]
    words = ["mine", "--queries", files[0], "--qrels", files[1], "--out", str(tmp_path / "out")]
    done = command(*words, "--store", str(tmp_path / "store"), "--ray", "auto")
    assert (2, True) == (done.status, "mining on Ray needs the URL of a server" in done.err)
    done = command(*words, "--ray", "auto", "--processes", "2")
    assert "--processes needs mining by one process: omit --processes, or --ray" in done.err
    done = command(*words, "--ray-workers", "2")
    assert "--ray-workers needs --ray ADDRESS" in done.err


@pytest.mark.slow
def test_the_commands_write_the_files_of_one_process(
    server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model in a directory, named from where the workers are not."""
    from tests.encoding.tiny_models import Recipe, save_tiny

    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("model", "judge")):
        save_tiny(tmp_path / name, Recipe(seed=seed))
    texts = {f"p{n}": f"passage {n} of {'london' if n % 2 else 'paris'}" for n in range(40)}
    Path("passages.tsv").write_text("".join(f"{pid}\t{texts[pid]}\n" for pid in texts))
    for name, numbers in (("train", range(20)), ("dev", range(20, 40))):
        Path(f"{name}.tsv").write_text("".join(f"q{n}\t{texts[f'p{n}']}\n" for n in numbers))
        Path(f"{name}.txt").write_text("".join(f"q{n} 0 p{n} 1\n" for n in numbers))
    place = ["--store", server.url]
    assert 0 == command("ingest", "passages.tsv", "--model", "model", *place).status
    size = "--ray auto --ray-workers 1 --ray-cpus 1 --ray-gpus 0"
    mine_ = "mine --queries train.tsv --qrels train.txt --mode dense --mode bm25 --depth 9"
    judge = (
        "judge --judge judge --queries train.tsv --dev-queries dev.tsv --dev-qrels dev.txt "
        "--allow-weak-judge --negatives"
    )
    for where, options in (("one", ""), ("ray", size)):
        for words in (f"{mine_} --out {where}", f"{judge} one --out {where}-judged"):
            done = command(*words.split(), *place, *options.split())
            assert 0 == done.status, done.err
    assert files_of(Path("one")) == files_of(Path("ray"))
    assert files_of(Path("one-judged")) == files_of(Path("ray-judged"))
