"""`get`, `delete` and `export`, as a person or a script meets them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from msmarco_qdrant.collection.passages import get_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command, standard_input

COMMANDS = (
    ["get", "1"],
    ["delete", "1"],
    ["export", "out.jsonl"],
    ["search", "x"],
    ["info"],
    ["optimize"],
)


def pids_in(place: str, passages: Sequence[Passage]) -> list[str]:
    """Which of the passages are there."""
    return list(get_passages(place, [passage.pid for passage in passages]))


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_collection_that_is_not_there_is_one_line(filled: str, arguments: list[str]) -> None:
    """The message tells those there are."""
    done = command(*arguments, "--store", filled, "--collection", "other")

    assert (1, "") == (done.status, done.out)
    assert done.err.startswith(f"Error: no collection 'other' in {filled}; there: msmarco.")
    assert 1 == len(done.err.splitlines())
    assert [] == list(Path().iterdir())


# ---- get -----------------------------------------------------------------------------------


def test_a_passage_is_shown_as_text(filled: str) -> None:
    """The pid, then text and meta as a search shows them."""
    done = command("get", "1", "--store", filled)

    assert (0, "") == (done.status, done.err)
    pid, text, meta = done.out.splitlines()
    assert ("1", "     london is a big city", "     {") == (pid, text, meta[:6])
    assert {"lang": "en", "year": 2001, "score": 1.5} == json.loads(meta)


def test_a_passage_without_meta_is_shown_without(filled: str) -> None:
    """No line for what is not there; a pid beyond 64 bits is as good as any."""
    done = command("get", "18446744073709551616", "--store", filled)

    expected = "18446744073709551616\n     numbers beyond 64 bits are strings\n"
    assert (0, expected, "") == done


def test_a_passage_is_shown_as_json(filled: str, passages: Sequence[Passage]) -> None:
    """One object with all there is."""
    done = command("get", "007", "--store", filled, "--json")

    spy = passages[2]
    assert (0, "") == (done.status, done.err)
    assert {"pid": "007", "text": spy.text, "meta": spy.meta} == json.loads(done.out)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_passage_that_is_not_there_is_an_error(filled: str, as_json: list[str]) -> None:
    """It names the pid, the collection and the store."""
    done = command("get", "7", "--store", filled, *as_json)

    expected = f"Error: no passage '7' in the collection 'msmarco' in {filled}\n"
    assert (1, "", expected) == done


def test_a_pid_may_begin_with_a_dash(tmp_path: Path) -> None:
    """Behind '--', as in every command line."""
    place = str(tmp_path / "store")
    ingest_passages([Passage("-7", "minus")], place, encoder=HashingEncoder())

    assert "-7\n     minus\n" == command("get", "--store", place, "--", "-7").out
    assert "1 deleted, 0 missing\n" == command("delete", "--store", place, "--", "-7").out


@pytest.mark.parametrize("pid", ["", "caf\udce9"], ids=["empty", "not utf-8"])
@pytest.mark.parametrize("name", ["get", "delete"])
def test_what_is_no_pid_is_wrong_usage(filled: str, name: str, pid: str) -> None:
    """The shell gives bytes that are no UTF-8 as lone surrogates."""
    done = command(name, pid, "--store", filled)

    assert (2, "") == (done.status, done.out)
    assert repr(pid) in done.err


# ---- delete --------------------------------------------------------------------------------


def test_passages_are_deleted(filled: str, passages: Sequence[Passage]) -> None:
    """It tells how many were there; one that is named twice is one."""
    done = command("delete", "1", "nowhere", "007", "1", "--store", filled)

    assert (0, "2 deleted, 1 missing\n", "") == done
    assert [passages[index].pid for index in (1, 3, 4)] == pids_in(filled, passages)
    again = command("delete", "1", "--store", filled, "--json")
    assert (0, {"deleted": 0, "missing": 1}) == (again.status, json.loads(again.out))


@pytest.mark.parametrize(
    ("content", "by"),
    [
        (b"1\r\n\r\n007\r\n\n\nnowhere", "name"),
        (gzip.compress(b"\xef\xbb\xbf1\n1\n007\nnowhere\n", mtime=0), "standard input"),
    ],
    ids=["from Windows", "gzip with repeats"],
)
def test_pids_come_from_a_file(
    filled: str, passages: Sequence[Passage], tmp_path: Path, content: bytes, by: str
) -> None:
    """One per line; empty lines are skipped."""
    file = tmp_path / "pids.txt"
    file.write_bytes(content)

    if by == "name":
        done = command("delete", "--from", str(file), "--store", filled)
    else:
        with standard_input(file):
            done = command("delete", "--from", "-", "--store", filled)

    assert (0, "2 deleted, 1 missing\n", "") == done
    assert [passages[index].pid for index in (1, 3, 4)] == pids_in(filled, passages)


def test_an_empty_file_deletes_nothing(filled: str, passages: Sequence[Passage]) -> None:
    """And is no error: there may be nothing to delete today."""
    Path("pids.txt").write_text("\n")

    done = command("delete", "--from", "pids.txt", "--store", filled)

    assert (0, "0 deleted, 0 missing\n", "") == done
    assert 5 == len(pids_in(filled, passages))


def test_a_line_with_a_tab_is_an_error(filled: str, passages: Sequence[Passage]) -> None:
    """A file of passages is not a file of pids; the message says where and what to do."""
    for before, again in (("", False), ("nobody\n", True)):
        Path("pids.txt").write_text(f"{before}1\tlondon is a big city\n")

        done = command("delete", "--from", "pids.txt", "--store", filled)

        assert (1, "") == (done.status, done.out)
        assert "is not a pid: it holds a tab; write one pid per line" in done.err
        assert again == ("run the same command again" in done.err)
    assert 5 == len(pids_in(filled, passages))


# ---- export --------------------------------------------------------------------------------


def test_passages_are_exported(filled: str, passages: Sequence[Passage]) -> None:
    """Under the name that was given, whatever its form; it tells how many they were."""
    for name in ("out.jsonl", "out.jsonl.gz", "out.parquet"):
        done = command("export", name, "--store", filled)

        assert (0, f"5 passages exported to {name}\n", "") == done
        rows = [row for row in Corpus(name) if isinstance(row, Passage)]
        assert {passage.pid: passage for passage in passages} == {row.pid: row for row in rows}
    assert 5 == pq.read_metadata("out.parquet").num_rows
    done = command("export", "out.jsonl", "--store", filled, "--json")
    assert {"exported": 5, "file": "out.jsonl"} == json.loads(done.out)


@pytest.mark.parametrize("name", ["out", "out.tsv", "-"])
def test_an_export_of_unknown_form_is_wrong_usage(filled: str, name: str) -> None:
    """The message lists the names that can be."""
    done = command("export", name, "--store", filled)

    assert (2, "") == (done.status, done.out)
    assert (
        "Error: output file must end in .jsonl, .ndjson, .jsonl.gz, .ndjson.gz or .parquet, got "
        f"{name}\n"
    ) == done.err
    assert [] == list(Path().iterdir())


def test_an_export_that_cannot_be_written_is_told(filled: str) -> None:
    """One line, and nothing of it is left."""
    done = command("export", "missing/out.jsonl", "--store", filled)

    expected = "Error: cannot write missing/out.jsonl: No such file or directory; name another file"
    assert (1, "", f"{expected}\n") == done
    Path("out.jsonl").mkdir()
    assert 2 == command("export", "out.jsonl", "--store", filled).status
