"""Judging: the judge is judged first, scores, folders that resume, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from msmarco_qdrant import SearchClient
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.encoding import Encoder, Reranker, load_reranker
from msmarco_qdrant.errors import (
    ModelNotFoundError,
    MsmarcoQdrantError,
    SourceError,
    UsageError,
    WeakJudgeError,
)
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from msmarco_qdrant.train import (
    JudgeReport,
    MinedQuery,
    judge_negatives,
    mine_negatives,
    open_scores,
    read_scores,
)
from msmarco_qdrant.train.judge_check import JudgeCheck
from msmarco_qdrant.train.judge_parts import PartFiles, split_parts
from msmarco_qdrant.train.judge_scorer import load_judge
from msmarco_qdrant.train.mined_mode import mined_mode
from msmarco_qdrant.train.negatives_file import write_negatives
from msmarco_qdrant.train.out_folder import OutFolder
from tests.encoding.tiny_cross_encoders import PairRecipe, save_tiny_pairs
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.train.small_collection import ENCODER, PASSAGES, QRELS, QUERIES, fill, mined, open_client

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAIN, DEV = QUERIES[:40], QUERIES[40:]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchClient]:
    """A client on the small collection."""
    with open_client(fill(tmp_path_factory.mktemp("judge") / "store")) as opened:
        yield opened


@pytest.fixture(scope="module")
def candidates(client: SearchClient) -> list[MinedQuery]:
    """The candidates of the training queries."""
    return mined(client, TRAIN)


def run(
    client: SearchClient,
    candidates: Any,
    out: Path,
    judge: Reranker | Encoder | str | None = None,
    **options: Any,
) -> JudgeReport:
    """Judge with the usual data."""
    given = {"dev_queries": DEV, "dev_qrels": QRELS, "queries": TRAIN, **options}
    queries = given.pop("queries")
    judge = judge or WordOverlapReranker()
    return judge_negatives(judge, client, queries, candidates, out, **given)


def test_each_positive_and_candidate_has_its_score(
    client: SearchClient, candidates: list[MinedQuery], tmp_path: Path
) -> None:
    """The scores are the judge's, in the order of the candidates; the file is read by choose."""
    report = run(client, candidates, tmp_path / "out")
    found = dict(read_scores(tmp_path / "out"))
    assert [query.qid for query in candidates] == [*found]
    texts = {query.qid: query.text for query in TRAIN}
    for query in candidates:
        pids = [*query.positives, *query.negatives["dense"]]
        assert pids == [*found[query.qid]]
        pairs = [(texts[query.qid], PASSAGES[pid]) for pid in pids]
        expected = WordOverlapReranker().scores(pairs).tolist()
        assert expected == [*found[query.qid].values()]
    assert (report.queries, report.missing) == (len(candidates), 0)
    assert report.pairs == sum(map(len, found.values()))
    assert report.check.is_better
    assert report.check.judge > 0.9 > report.check.search
    assert "nDCG@10 0.9" in str(report)
    with open_scores(tmp_path / "out") as lookup:
        assert lookup.get("q7") == found["q7"]


def test_a_complete_folder_returns_its_report(
    client: SearchClient, candidates: list[MinedQuery], tmp_path: Path
) -> None:
    """The same call does no work again; another judge or other queries need another folder."""
    first = run(client, candidates, tmp_path / "out")
    judge = WordOverlapReranker()
    assert run(client, candidates, tmp_path / "out", judge) == first
    assert judge.scored == 0
    for options in (
        {"judge": HashingEncoder(500)},
        {"queries": [*TRAIN, Query("other", "text")]},
        {"dev_queries": DEV[:-1]},
        {"depth": 50},
    ):
        with pytest.raises(UsageError, match="was begun with"):
            run(client, candidates, tmp_path / "out", **options)


class _Failing(WordOverlapReranker):
    """Fails after some pairs, as a machine that runs out of memory."""

    def __init__(self, pairs: int) -> None:
        super().__init__()
        self._left = pairs

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self._left -= len(pairs)
        if self._left < 0:
            raise MemoryError
        return super().scores(pairs)


def test_an_interrupted_judging_resumes(
    client: SearchClient,
    candidates: list[MinedQuery],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Complete parts, and the check of the judge, are not computed again; the bytes are equal."""
    monkeypatch.setattr("msmarco_qdrant.train.judge_parts.split_parts.__defaults__", (100,))
    whole = run(client, candidates, tmp_path / "whole")
    of_check = 20 * 100
    with pytest.raises(MemoryError):
        run(client, candidates, tmp_path / "out", _Failing(of_check + 500))
    parts = [*(tmp_path / "out" / "parts").glob("*.parquet")]
    assert 3 <= len(parts) <= 5
    judge = WordOverlapReranker()
    report = run(client, candidates, tmp_path / "out", judge)
    assert judge.scored < report.pairs == whole.pairs
    for name in ("scores.parquet", "settings.json", "check.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_kill_before_the_report_loses_no_score(
    client: SearchClient,
    candidates: list[MinedQuery],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parts are kept until the report is there, and removed by the next call."""

    def killed(self: OutFolder, name: str, value: object) -> None:
        if name == "report.json":
            raise KeyboardInterrupt
        write_json(self, name, value)

    write_json = OutFolder.write_json
    monkeypatch.setattr(OutFolder, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        run(client, candidates, tmp_path / "out")
    monkeypatch.setattr(OutFolder, "write_json", write_json)
    judge = WordOverlapReranker()
    report = run(client, candidates, tmp_path / "out", judge)
    assert judge.scored == 0
    assert report.pairs == sum(len(found) for _, found in read_scores(tmp_path / "out"))
    assert not (tmp_path / "out" / "parts").exists()
    (tmp_path / "out" / "parts").mkdir()  # as a kill after the report leaves it
    assert run(client, candidates, tmp_path / "out") == report
    assert not (tmp_path / "out" / "parts").exists()


def test_a_weak_judge_is_refused_with_both_figures(
    client: SearchClient, candidates: list[MinedQuery], tmp_path: Path
) -> None:
    """Another coarse encoder ranks by chance; with allow_weak its scores are written."""
    weak = HashingEncoder(4, salt="x")
    with pytest.raises(WeakJudgeError) as caught:
        run(client, candidates, tmp_path / "out", weak)
    assert f"nDCG@10 {caught.value.judge:.4f} of the judge" in str(caught.value)
    assert f"{caught.value.search:.4f} of the search (20 dev queries, p = " in str(caught.value)
    assert "--allow-weak-judge (allow_weak=True)" in str(caught.value)
    report = run(client, candidates, tmp_path / "out", weak, allow_weak=True)
    assert not report.check.is_better
    assert "its scores are allowed anyway" in str(report)
    with pytest.raises(WeakJudgeError):
        run(client, candidates, tmp_path / "out", weak)


@pytest.mark.parametrize(
    ("check", "is_better"),
    [
        (JudgeCheck(50, 0.3, 0.4, 0.01), True),
        (JudgeCheck(50, 0.3, 0.4, 0.2), False),
        (JudgeCheck(50, 0.4, 0.3, 0.01), False),
        (JudgeCheck(1, 0.3, 0.4, None), False),
    ],
)
def test_a_judge_is_better_by_the_mean_and_the_test(check: JudgeCheck, is_better: bool) -> None:
    """A better mean that may be chance is not enough."""
    assert check.is_better == is_better


def test_a_bi_encoder_scores_by_its_similarity(
    client: SearchClient, candidates: list[MinedQuery], tmp_path: Path
) -> None:
    """The cosine of both vectors; equal to what a search with that model returns."""
    judge = HashingEncoder(500)
    report = run(client, candidates, tmp_path / "out", judge)
    assert report.scale == "cosine"
    query = TRAIN[3]
    scores = dict(read_scores(tmp_path / "out"))[query.qid]
    vectors = judge.encode([PASSAGES[pid] for pid in scores])
    expected = vectors @ judge.encode_queries([query.text])[0]
    np.testing.assert_allclose([*scores.values()], expected, atol=1e-6)


def test_a_cross_encoder_scores_the_same_pairs(
    client: SearchClient, candidates: list[MinedQuery], tmp_path: Path
) -> None:
    """By its name or loaded: its scores are those of its own call."""
    directory = save_tiny_pairs(tmp_path / "electra", PairRecipe("electra"))
    run(client, candidates[:5], tmp_path / "out", str(directory), allow_weak=True)
    reranker = load_reranker(directory)
    texts = {query.qid: query.text for query in TRAIN}
    for qid, scores in read_scores(tmp_path / "out"):
        expected = reranker.scores([(texts[qid], PASSAGES[pid]) for pid in scores])
        np.testing.assert_allclose([*scores.values()], expected, atol=1e-5)


def test_a_judge_is_loaded_as_what_it_is(tmp_path: Path) -> None:
    """A directory with a pooling is a bi-encoder's."""
    assert hasattr(load_judge(save_tiny(tmp_path / "bi", Recipe())), "encode_queries")
    assert hasattr(load_judge(save_tiny_pairs(tmp_path / "pairs", PairRecipe())), "scores")
    with pytest.raises(ModelNotFoundError, match="cannot load the model none"):
        load_judge("none")


def test_passages_that_the_collection_lacks_have_no_score(
    client: SearchClient, tmp_path: Path
) -> None:
    """They are counted; a query of which all are missing keeps an empty row."""
    some = MinedQuery("q0", ("p0",), {"dense": ("p1", "gone"), "bm25": ("gone", "p2")})
    none = MinedQuery("q1", ("lost",), {"dense": ("gone",)})
    report = run(client, [some, none], tmp_path / "out")
    assert (report.queries, report.pairs, report.missing) == (2, 3, 3)
    assert {"q0": ["p0", "p1", "p2"], "q1": []} == {
        qid: [*scores] for qid, scores in read_scores(tmp_path / "out")
    }
    assert "3 passages are not in the collection" in str(report)


def test_the_mode_that_mined_is_the_one_to_beat(client: SearchClient, tmp_path: Path) -> None:
    """It is read from the folder of the mining; `mode` overrides it."""
    positives = {query.qid: [*QRELS[query.qid]] for query in TRAIN}
    for modes in (("bm25",), ("dense", "bm25")):
        folder = tmp_path / "-".join(modes)
        mine_negatives(client, TRAIN, positives, folder, modes=modes, depth=5)
        expected = modes[0] if len(modes) == 1 else "hybrid"
        assert expected == mined_mode(folder) == mined_mode(folder / "negatives.jsonl.gz")
        for given, mode in ((None, expected), ("dense", "dense")):
            out = tmp_path / f"{folder.name} {given}"
            run(client, folder, out, mode=given, allow_weak=True, depth=10)
            settings = json.loads((out / "settings.json").read_text())["settings"]
            assert mode == settings["mode"]
    (tmp_path / "settings.json").write_text("[]")
    assert "dense" == mined_mode(tmp_path) == mined_mode([])


def test_a_part_of_other_queries_is_not_used(candidates: list[MinedQuery], tmp_path: Path) -> None:
    """As of a version with parts of another size: its scores would be those of other pairs."""
    files = PartFiles(tmp_path)
    one, other = (next(iter(split_parts(candidates, pairs))) for pairs in (50, 90))
    files.write(one, {qid: dict.fromkeys(pids, 0.5) for qid, pids in one.pids.items()}.items())
    assert files.has(one)
    assert not files.has(other)


def test_parts_have_whole_queries_in_order() -> None:
    """A query is never split, also if it has more pairs than a part."""
    queries = [
        MinedQuery(f"q{n}", ("p",), {"a": tuple(f"n{i}" for i in range(n)), "b": ("n0", "p")})
        for n in range(6)
    ]
    parts = [*split_parts(queries, 6)]
    assert [0, 1, 2] == [part.number for part in parts]
    assert [*parts[0].pids] == ["q0", "q1", "q2"]
    assert parts[1].pids == {"q3": ("p", "n0", "n1", "n2"), "q4": ("p", "n0", "n1", "n2", "n3")}
    assert parts[2].pairs == 6


REFUSED: dict[str, tuple[dict[str, Any], type[MsmarcoQdrantError], str]] = {
    "no judge": ({"judge": object()}, UsageError, "judge must be a cross-encoder or a bi-encoder"),
    "no such file": ({"candidates": "none.jsonl"}, SourceError, "no such file: none.jsonl"),
    "queries without text": ({"queries": TRAIN[:3]}, UsageError, "got none of 'q3'"),
    "other qrels": ({"dev_qrels": {"x": {"p1": 1}}}, UsageError, "none of the 20 queries has"),
    "no relevant": ({"dev_qrels": {"q50": {"p1": 0}}}, UsageError, "a grade of 1 or more"),
    "no dev queries": ({"dev_queries": []}, UsageError, "must have one query or more"),
    "depth": ({"depth": 0}, UsageError, "depth must be 1 to 10,000, got 0"),
    "other pids": (
        {"candidates": [MinedQuery("q0", ("x",), {"dense": ("y",)})]},
        UsageError,
        "has none of the pids, such as 'x'",
    ),
    "misspelled": ({"dev_querys": DEV}, UsageError, "dev_queries"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_calls_are_refused(
    case: str, client: SearchClient, candidates: list[MinedQuery], tmp_path: Path
) -> None:
    """Each names the rule and the value."""
    options, error, message = REFUSED[case]
    given = {"candidates": candidates, **options}
    with pytest.raises(error) as caught:
        run(client, given.pop("candidates"), tmp_path / "out", **given)
    assert message in str(caught.value)


# ---- the command -----------------------------------------------------------------------------


@pytest.fixture
def words(client: SearchClient, candidates: list[MinedQuery], tmp_path: Path) -> list[str]:
    """The command's options, with files of the usual data."""
    write_negatives(tmp_path / "negatives.jsonl.gz", candidates)
    for name, queries in (("train", TRAIN), ("dev", DEV)):
        lines = "".join(f"{query.qid}\t{query.text}\n" for query in queries)
        (tmp_path / f"{name}.tsv").write_text(lines)
    grades = [f"{qid} 0 {pid} 1\n" for qid, found in QRELS.items() for pid in found]
    (tmp_path / "dev.txt").write_text("".join(grades))
    options = {
        "store": str(client.store.dsn),
        "negatives": tmp_path / "negatives.jsonl.gz",
        "queries": tmp_path / "train.tsv",
        "dev-queries": tmp_path / "dev.tsv",
        "dev-qrels": tmp_path / "dev.txt",
        "out": tmp_path / "out",
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def test_the_command_judges_and_advises_its_own_option(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weak judge ends with 2 and the option; with it, the scores are written."""
    from tests.cli.runner import command

    load: Callable[..., Any] = lambda *_, **__: ENCODER  # noqa: E731
    monkeypatch.setattr("msmarco_qdrant.search.client._load_current_encoder", load)
    judge = ("--judge", str(save_tiny_pairs(tmp_path / "bert", PairRecipe("bert"))))
    done = command("judge", *judge, *words)
    assert done.status == 2
    assert "--allow-weak-judge" in done.err
    done = command("judge", *judge, *words, "--allow-weak-judge", "--json")
    assert done.status == 0
    report = json.loads(done.out)
    assert (report["queries"], report["missing"]) == (40, 0)
    assert (tmp_path / "out" / "scores.parquet").is_file()
