"""Files of scores: every form that is read, what is refused, and look-ups by query."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msmarco_qdrant.errors import OutputError, SourceError
from msmarco_qdrant.train import open_scores, read_scores, write_scores

SCORES: dict[str, dict[str, float]] = {
    f"q{query}": {f"p{pid}": (query * pid % 7) / 4 for pid in range(query + 1)}
    for query in range(40)
}


def _rows(scores: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str, float]]:
    return [(qid, pid, score) for qid, found in scores.items() for pid, score in found.items()]


def _write_ours(path: Path) -> None:
    write_scores(path, SCORES.items())


def _write_pairs(path: Path) -> None:
    columns = zip(*_rows(SCORES), strict=True)
    names = ("query_id", "passage_id", "score")
    pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), path)


def _write_object(path: Path) -> None:
    path.write_text(json.dumps(SCORES))


def _write_list_lines(path: Path) -> None:
    with gzip.open(path, "wt") as file:
        for qid, found in SCORES.items():
            row = {"query_id": qid, "corpus_id": [*found], "score": [*found.values()]}
            file.write(json.dumps(row) + "\n")


def _write_pair_lines(path: Path) -> None:
    rows = [{"qid": qid, "pid": pid, "score": score} for qid, pid, score in _rows(SCORES)]
    path.write_text("\n\n".join(map(json.dumps, rows)))


FORMS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "ours": ("scores.parquet", _write_ours),
    "pairs": ("pairs.parquet", _write_pairs),
    "object": ("scores.json", _write_object),
    "lines": ("scores.jsonl.gz", _write_list_lines),
    "pair lines": ("scores.jsonl", _write_pair_lines),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_and_looked_up(form: str, tmp_path: Path) -> None:
    """Each published form gives the same scores, in its order and by query."""
    name, write = FORMS[form]
    path = tmp_path / name
    write(path)
    assert [*read_scores(path)] == [*SCORES.items()]
    with open_scores(path) as lookup:
        assert len(lookup) == len(SCORES)
        assert all(lookup.get(qid) == SCORES[qid] for qid in [*SCORES, "q3", "q38", "q0"])
        assert lookup.get("unknown") == {}


def test_the_files_of_a_folder_are_read_by_name(tmp_path: Path) -> None:
    """Published data comes in several files; integers are ids."""
    (tmp_path / "b.jsonl").write_text('{"qid": 2, "pid": 5, "score": 1}\n')
    (tmp_path / "a.json").write_text('{"1": {"7": -1.5}}')
    (tmp_path / "report.txt").write_text("no scores")
    assert [*read_scores(tmp_path)] == [("1", {"7": -1.5}), ("2", {"5": 1.0})]


def test_scores_in_memory_are_looked_up() -> None:
    """A mapping is taken in place of a file."""
    with open_scores({"q": {"p": 1.0}}) as lookup:
        assert (lookup.get("q"), lookup.get("x"), len(lookup)) == ({"p": 1.0}, {}, 1)


def test_equal_scores_give_equal_bytes(tmp_path: Path) -> None:
    """A resumed run can be compared with an undisturbed one."""
    for name in "ab":
        assert write_scores(tmp_path / name, iter(SCORES.items())) == len(SCORES)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_object_is_read_in_parts(tmp_path: Path) -> None:
    """An object larger than what is read at once, with white space, comes out whole."""
    scores = {f"q{query}": {f"p{pid}": pid / 8 for pid in range(400)} for query in range(320)}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(scores, indent=1))
    assert path.stat().st_size > 1 << 20
    assert dict(read_scores(path)) == scores


BAD_TEXTS = {
    "empty": ("", "one query or more, got none"),
    "array": ('[{"qid": 1}]', "must be JSON lines of"),
    "table": ("1\t2\t0.5\n", "must be JSON lines of"),
    "cut": ('{"1": {"2": 3.0, ', "must be JSON lines of"),
    "cut after an entry": ('{"1": {"2": 3.0},', "cut off"),
    "syntax": ('{"1": {"2": 3.0, "4"}}', "Expecting ':'"),
    "flat": ('{"1": 3.0}', "must be an object {pid: score}, got '3.0'"),
    "no score": ('{"qid": 1, "text": "x"}', "must have the columns query_id, corpus_id and score"),
    "not a number": ('{"qid": 1, "pid": 2, "score": NaN}', "a finite number, got nan"),
    "a truth": ('{"1": {"2": true}}', "a finite number, got True"),
    "no id": ('{"qid": null, "pid": 2, "score": 1}', "a non-empty string or an integer, got None"),
    "margins": (
        '{"query_id": 1, "positive_id": 2, "negative_id": 3, "score": 4}',
        "holds differences of scores",
    ),
    "unequal lists": ('{"qid": 1, "pid": [1, 2], "score": [1]}', "two lists of equal length"),
    "twice in a list": ('{"qid": 1, "pid": [2, 2], "score": [1, 1]}', "got two of one passage"),
    "two scores": (
        '{"qid": 1, "pid": 2, "score": 1}\n{"qid": 1, "pid": 2, "score": 3}',
        "has the scores 1.0 and 3.0 for the query '1'",
    ),
    "scattered": (
        "\n".join(f'{{"qid": {qid}, "pid": 2, "score": 1}}' for qid in (1, 2, 1)),
        "the rows of the query '1' must follow each other",
    ),
    "HTML": ("<!doctype html><p>x", "an HTML page"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_other_content_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    """A file of another form, and each wrong value, is named."""
    content, reason = BAD_TEXTS[case]
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(SourceError, match=r".*") as caught:
        dict(read_scores(path))
    assert reason in str(caught.value)
    assert "scores.json" in str(caught.value)


@pytest.mark.parametrize("opened", [open, gzip.open])
def test_a_pickle_is_never_loaded(opened: Callable[..., gzip.GzipFile], tmp_path: Path) -> None:
    """Loading a pickle runs its code: also a compressed one is refused."""
    path = tmp_path / "scores.pkl.gz"
    with opened(path, "wb") as file:
        pickle.dump(SCORES, file)
    with pytest.raises(SourceError, match="Python pickle, which can run any code"):
        dict(read_scores(path))


def test_missing_files_and_damaged_parquet_are_refused(tmp_path: Path) -> None:
    """Errors of files are errors of the source."""
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    for path, reason in (
        (tmp_path / "none.parquet", "no such file"),
        (tmp_path / "x.parquet", "cannot be read as Parquet"),
    ):
        for read in (lambda source: dict(read_scores(source)), open_scores):
            with pytest.raises(SourceError, match=reason):
                read(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="must hold files of scores"):
        dict(read_scores(tmp_path / "empty"))


def test_a_score_that_is_not_a_number_cannot_be_written(tmp_path: Path) -> None:
    """What Parquet cannot hold is an error of the output, and leaves no file."""
    with pytest.raises(OutputError, match="cannot be written"):
        write_scores(tmp_path / "scores.parquet", [("q", {"p": "high"})])  # type: ignore[dict-item]
    assert not [*tmp_path.iterdir()]
