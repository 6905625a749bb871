"""Files of mined negatives."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from msmarco_qdrant.errors import OutputError, SourceError, UsageError
from msmarco_qdrant.train import MinedQuery, read_negatives, write_negatives

PUBLISHED = (
    b'{"qid": 867436, "pos": [5238393], "neg": {"bm25": [258, 5238390], "tas-b": [5238392]}}\n'
    b"\n"
    b'{"qid": "MED-1", "pos": [], "neg": {}}\n'
)
READ = [
    MinedQuery("867436", ("5238393",), {"bm25": ("258", "5238390"), "tas-b": ("5238392",)}),
    MinedQuery("MED-1", (), {}),
]
MIXED = [
    MinedQuery("007", ("0", "-7"), {"bm25": ("7", "9" * 25, "a b", "é")}),
    MinedQuery("12", ("5",), {"dense": (), "bm25": ("6",)}),
]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_published_form_is_read(tmp_path: Path, pack: object) -> None:
    """Integers become their decimal form; blank lines are skipped."""
    path = tmp_path / "negatives"
    path.write_bytes(pack(PUBLISHED))  # type: ignore[operator]

    assert READ == list(read_negatives(path))


@pytest.mark.parametrize("name", ["negatives.jsonl.gz", "plain.jsonl"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    """The same queries give the same bytes, and any ids survive."""
    path = tmp_path / name
    assert 2 == write_negatives(path, iter(MIXED))
    first = path.read_bytes()

    assert MIXED == list(read_negatives(path))
    assert 2 == write_negatives(path, read_negatives(path))
    assert first == path.read_bytes()


def test_decimal_ids_are_written_as_integers(tmp_path: Path) -> None:
    """Scripts for the published file look passages up by integers."""
    path = tmp_path / "plain.jsonl"
    write_negatives(path, MIXED)

    first, second = map(json.loads, path.read_bytes().splitlines())
    assert {"qid": 12, "pos": [5], "neg": {"dense": [], "bm25": [6]}} == second
    assert ("007", [0, "-7"]) == (first["qid"], first["pos"])
    assert [7, "9" * 25, "a b", "é"] == first["neg"]["bm25"]


def test_a_folder_stands_for_its_file(tmp_path: Path) -> None:
    """Steps of training pass folders on."""
    write_negatives(tmp_path / "negatives.jsonl.gz", MIXED)

    assert MIXED == list(read_negatives(tmp_path))


def test_positives_among_the_negatives_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A repeated pid counts once."""
    path = tmp_path / "negatives"
    path.write_text('{"qid": 1, "pos": [2, 2], "neg": {"a": [3, 2, "3"], "b": ["2"]}}\n')

    assert [MinedQuery("1", ("2",), {"a": ("3",), "b": ()})] == list(read_negatives(path))
    assert "2 negatives are positives of their query: left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no queries; expected lines such as"),
        (b"\n\n", "has no queries; expected lines such as"),
        (b"1\t2\n", r"negatives:1: not JSON .*'1\\t2'; expected \{"),
        (b"[1]\n", r"negatives:1: expected an object with qid, pos and neg, got \[1\]; such as"),
        (b'{"qid": 1, "pos": [2]}\n', "negatives:1: expected an object with qid, pos and neg"),
        (b'{"qid": 1.5, "pos": [], "neg": {}}', "1: qid must be an integer or a non-empty string"),
        (b'{"qid": true, "pos": [], "neg": {}}', "1: qid must be an integer or .*, got True"),
        (b'{"qid": "", "pos": [], "neg": {}}', "1: qid must be an integer or .*, got ''"),
        (b'{"qid": 1, "pos": 2, "neg": {}}', "1: pos must be a list of pids, got 2"),
        (b'{"qid": 1, "pos": [{}], "neg": {}}', "1: a pid in pos must be an integer or .*"),
        (b'{"qid": 1, "pos": [2], "neg": [3]}', "1: neg must be an object with a list of pids"),
        (b'{"qid": 1, "pos": [2], "neg": {"a": 3}}', "1: neg of 'a' must be a list of pids"),
        (b'{"qid": 1, "pos": [2], "neg": {"a": [null]}}', "1: a pid in neg of 'a' must be"),
        (PUBLISHED + PUBLISHED, "negatives:4: each query must have one line, got '867436' again"),
        pytest.param(
            gzip.compress(PUBLISHED, mtime=0)[:-9],
            "negatives:.* the gzip stream ends early",
            id="cut gzip",
        ),
        (b'{"qid": 1, "pos": ' + b"[" * 100_000, "negatives:1: not JSON"),
    ],
)
def test_other_files_are_refused_with_their_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """Nothing is skipped silently."""
    path = tmp_path / "negatives"
    path.write_bytes(content)

    with pytest.raises(SourceError, match=message):
        list(read_negatives(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """So is a folder without the file."""
    with pytest.raises(SourceError, match="no such file"):
        list(read_negatives(tmp_path / "nothing"))
    with pytest.raises(
        SourceError, match=r"must hold negatives\.jsonl\.gz: run `mine` or `choose`"
    ):
        list(read_negatives(tmp_path))


@pytest.mark.parametrize(
    ("mined", "message"),
    [
        ([READ[0], READ[0]], "each query needs its own qid, got '867436' twice"),
        ([MinedQuery("", (), {})], "qid must be a non-empty string, got ''"),
        ([MinedQuery("1", ("",), {})], "pid must be a non-empty string, got ''"),
        ([MinedQuery("1", (2,), {})], r"pid must be a non-empty string, got 2"),  # type: ignore[arg-type]
        ([MinedQuery("1", ("2",), {"a": ("3", "2")})], "must not be positives, got '2' of 'a'"),
    ],
)
def test_invalid_queries_leave_the_old_file(
    tmp_path: Path, mined: list[MinedQuery], message: str
) -> None:
    """The file is replaced only when all are written."""
    path = tmp_path / "negatives.jsonl.gz"
    write_negatives(path, MIXED)

    with pytest.raises(UsageError, match=message):
        write_negatives(path, mined)
    assert MIXED == list(read_negatives(path))
    assert [path] == list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The message names it."""
    with pytest.raises(OutputError, match="cannot write"):
        write_negatives(tmp_path / "nothing" / "negatives.jsonl", MIXED)
