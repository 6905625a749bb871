"""`get`, `count`, `facets`, `list`, `delete` and `export`, as a person or a script uses them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
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

COMMANDS = ("get 1", "delete 1", "export out.jsonl", "search x", "info", "optimize")


def pids_in(place: str, passages: Sequence[Passage]) -> list[str]:
    """The pids of the passages that the store has."""
    return list(get_passages(place, [passage.pid for passage in passages]))


def test_missing_collection_is_one_line(filled: str) -> None:
    """The message lists the existing ones."""
    for arguments in COMMANDS:
        done = command(*arguments.split(), "--store", filled, "--collection", "other")

        assert (1, "") == (done.status, done.out)
        assert done.err.startswith(f"Error: no collection 'other' in {filled}; there: msmarco.")
        assert 1 == len(done.err.splitlines())
    assert [] == list(Path().iterdir())


# ---- count and list -------------------------------------------------------------------------


def test_passages_are_counted(filled: str) -> None:
    """As a number alone, for scripts, or as JSON."""
    assert (0, "5\n", "") == command("count", "--store", filled)
    assert (0, "5\n", "") == command("count", "--store", filled, "--estimate")
    done = command("count", "--store", filled, "--filter", "lang=en", "--json")
    assert (0, "") == (done.status, done.err)
    assert {"collection": "msmarco", "passages": 2} == json.loads(done.out)


def test_values_are_counted(filled: str) -> None:
    """As a table or as JSON, of all passages or of those that match."""
    done = command("facets", "lang", "--store", filled)
    assert (0, "lang  passages\nen    2\nfr    1\n", "") == done
    done = command("facets", "live", "--store", filled, "--json", "--filter", "year>=2002")
    assert (0, [{"value": True, "count": 1}]) == (done.status, json.loads(done.out))
    done = command("facets", "lang", "--store", filled, "--filter", "lang=sv", "--estimate")
    assert (0, "no passage found\n") == (done.status, done.out)
    done = command("facets", "", "--store", filled)
    assert (2, "") == (done.status, done.out)
    assert "field must be the name of a field of meta" in done.err


def test_passages_are_listed(filled: str) -> None:
    """With pid, text and meta, up to the limit; a filter without a match is not an error."""
    done = command("list", "--store", filled, "-n", "2", "--json")
    assert [{"pid", "text", "meta"}] * 2 == [set(one) for one in json.loads(done.out)]
    done = command("list", "--store", filled, "--filter", "year=2002")
    pid, text, meta = done.out.splitlines()
    assert ("2", "     paris is a city in france") == (pid, text)
    assert {"lang": "fr", "year": 2002, "live": True} == json.loads(meta)
    done = command("list", "--store", filled, "--filter", "lang=sv")
    assert (0, "no passage found\n", "") == done


def test_passages_are_listed_in_an_order(filled: str) -> None:
    """Of a field with an index, from a passage on; without one the error has the command."""
    arguments = ("list", "--store", filled, "--order-by", "-year", "--json")
    done = command(*arguments)
    assert 2 == done.status
    assert "index add year=integer" in done.err
    assert 0 == command("index", "add", "year=integer", "--store", filled).status
    assert ["2", "1"] == [one["pid"] for one in json.loads(command(*arguments).out)]
    found = json.loads(command(*arguments, "--after", "2").out)
    assert ["1"] == [one["pid"] for one in found]


def test_a_tenant_is_chosen_and_read(filled: str) -> None:
    """By a field, which every command that reads then asks for."""
    done = command("index", "tenant", "lang", "--store", filled)
    assert (0, "tenants by lang: pass --tenant to read them\n", "") == done
    done = command("count", "--store", filled)
    assert 2 == done.status
    assert "of the field 'lang': pass --tenant" in done.err
    assert (0, "2\n", "") == command("count", "--store", filled, "--tenant", "en")
    assert 1 == command("get", "2", "--store", filled, "--tenant", "en").status
    done = command("similar", "1", "--store", filled, "--tenant", "en", "--json")
    assert (0, "") == (done.status, done.err)
    assert {"en"} == {hit["meta"]["lang"] for hit in json.loads(done.out)}
    assert "pass --tenant" in command("similar", "1", "--store", filled).err
    done = command("list", "--store", filled, "--tenant", "fr", "--json")
    assert ["2"] == [one["pid"] for one in json.loads(done.out)]
    done = command("facets", "year", "--store", filled, "--tenant", "fr", "--json")
    assert [{"value": 2002, "count": 1}] == json.loads(done.out)
    done = command("similar", "1", "--store", filled, "--tenant", "en", "--json")
    assert {"en"} == {one["meta"]["lang"] for one in json.loads(done.out)}
    assert 2 == command("similar", "2", "--store", filled, "--tenant", "en").status
    assert (0, "0 deleted, 1 missing\n", "") == command(
        "delete", "2", "--store", filled, "--tenant", "en"
    )
    listed = command("index", "list", "--store", filled).out
    assert listed.endswith("tenants by lang\n")
    assert 0 == command("index", "tenant", "--none", "--store", filled).status
    assert (0, "5\n", "") == command("count", "--store", filled)
    assert 2 == command("index", "tenant", "--store", filled).status


def test_passages_are_chosen_by_an_expression(filled: str) -> None:
    """Together with conditions; a delete by one needs `--yes`, too."""
    place = ("--store", filled)
    where = ("--where", "year = 2002 or lang in (sv, 'fr') and not draft")
    assert (0, "1\n", "") == command("count", *place, *where)
    assert (0, "0\n", "") == command("count", *place, *where, "--filter", "lang=en")
    done = command("delete", *place, "--where", "lang has FR")
    assert 2 == done.status
    assert "1 passages of" in done.err
    done = command("delete", *place, "--where", "lang has FR", "--yes")
    assert (0, "1 deleted\n", "") == done


@pytest.mark.parametrize("name", ["count", "list", "delete"])
def test_s5_an_answer_of_nothing_is_explained(
    filled: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with the status and output of any answer."""
    for condition, note in (("pid=1", "the pid of a passage is not in"), ("lang:de", "lang=de")):
        caplog.clear()
        done = command(name, "--store", filled, "--filter", condition)
        assert 0 == done.status
        assert done.out.startswith(("0", "no passage"))
        (message,) = caplog.messages
        assert note in message


def test_passages_that_match_are_deleted(filled: str, passages: Sequence[Passage]) -> None:
    """After `--yes` only, which is not needed if none matches."""
    arguments = ("delete", "--filter", "lang=en", "--store", filled)
    done = command(*arguments)
    assert (2, "") == (done.status, done.out)
    expected = f"nothing was deleted: 2 passages of 'msmarco' in {filled} match; pass --yes to"
    assert expected in done.err
    misspelled = command("delete", "--filter", "langg!=en", "--store", filled, "--yes")
    assert (2, "") == (misspelled.status, misspelled.out)
    assert "nothing was deleted: a filter to delete by must" in misspelled.err
    assert 5 == len(pids_in(filled, passages))
    assert (0, "2 deleted\n", "") == command(*arguments, "--yes")
    assert ["2", passages[3].pid, passages[4].pid] == pids_in(filled, passages)
    assert (0, '{\n  "deleted": 0\n}\n', "") == command(*arguments, "--json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("delete 1 --filter lang=en", "pass one PID or more, --from FILE, --filter CONDITION"),
        ("delete 1 --yes", "--yes needs --filter or --where"),
        ("delete --filter =en", "expected FIELD=VALUE"),
        ("count --filter =en", "expected FIELD=VALUE"),
        ("list --limit 0", "Invalid value for '--limit'"),
        ("export - --json", "--json needs a FILE; '-' writes passages to standard output"),
    ],
)
def test_wrong_usage(arguments: str, message: str) -> None:
    """Refused before a store is opened."""
    done = command(*arguments.split())
    assert 2 == done.status
    assert message in done.err


@pytest.mark.slow
@pytest.mark.parametrize("reads", ["all", "nothing"])
def test_export_to_standard_output(reads: str, passages: Sequence[Passage]) -> None:
    """JSON lines that `ingest` reads back; a reader such as `head` may close it early."""
    ingest_passages(passages, "store", encoder=HashingEncoder(), optimize=False)
    reading, writing = os.pipe()
    if reads == "nothing":
        os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "msmarco_qdrant", "export", "-", "--store", "store"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (0, b"") == (done.returncode, done.stderr)
    if reads == "all":
        with os.fdopen(reading, "rb") as file:
            Path("out.jsonl").write_bytes(file.read())
        found = [one for one in Corpus("out.jsonl") if isinstance(one, Passage)]
        assert {one.pid: (one.text, one.meta) for one in passages} == {
            one.pid: (one.text, one.meta) for one in found
        }


# ---- get -----------------------------------------------------------------------------------


def test_get_shows_a_passage(filled: str, passages: Sequence[Passage]) -> None:
    """As text, without a line for missing meta, and as JSON."""
    done = command("get", "1", "--store", filled)
    assert (0, "") == (done.status, done.err)
    pid, text, meta = done.out.splitlines()
    assert ("1", "     london is a big city", "     {") == (pid, text, meta[:6])
    assert {"lang": "en", "year": 2001, "score": 1.5} == json.loads(meta)

    done = command("get", "18446744073709551616", "--store", filled)
    expected = "18446744073709551616\n     numbers beyond 64 bits are strings\n"
    assert (0, expected, "") == done

    done = command("get", "007", "--store", filled, "--json")
    spy = passages[2]
    assert (0, "") == (done.status, done.err)
    assert {"pid": "007", "text": spy.text, "meta": spy.meta} == json.loads(done.out)


def test_missing_and_invalid_pids_are_errors(filled: str) -> None:
    """The shell passes bytes that are not UTF-8 as lone surrogates."""
    expected = f"Error: no passage '7' in the collection 'msmarco' in {filled}\n"
    assert (1, "", expected) == command("get", "7", "--store", filled)
    done = command("get", "7", "--store", filled, "--json")
    error = {"type": "Error", "message": expected.removeprefix("Error: ").strip()}
    assert (1, {"error": error}, expected) == (done.status, json.loads(done.out), done.err)
    for name in ("get", "delete"):
        for pid in ("", "caf\udce9"):
            done = command(name, pid, "--store", filled)

            assert (2, "") == (done.status, done.out)
            assert repr(pid) in done.err


def test_pid_may_begin_with_a_dash(tmp_path: Path) -> None:
    """After '--'."""
    place = str(tmp_path / "store")
    ingest_passages([Passage("-7", "minus")], place, encoder=HashingEncoder(), optimize=False)

    assert "-7\n     minus\n" == command("get", "--store", place, "--", "-7").out
    assert "1 deleted, 0 missing\n" == command("delete", "--store", place, "--", "-7").out


# ---- delete --------------------------------------------------------------------------------


def test_passages_are_deleted(filled: str, passages: Sequence[Passage]) -> None:
    """It counts each pid once."""
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


def test_file_without_pids_deletes_nothing(filled: str, passages: Sequence[Passage]) -> None:
    """An empty file is valid; a file of passages is not a file of pids."""
    Path("pids.txt").write_text("\n")
    done = command("delete", "--from", "pids.txt", "--store", filled)
    assert (0, "0 deleted, 0 missing\n", "") == done
    for before, again in (("", False), ("nobody\n", True)):
        Path("pids.txt").write_text(f"{before}1\tlondon is a big city\n")

        done = command("delete", "--from", "pids.txt", "--store", filled)

        assert (1, "") == (done.status, done.out)
        assert "is not a pid: it holds a tab; write one pid per line" in done.err
        assert again == ("run the same command again" in done.err)
    assert 5 == len(pids_in(filled, passages))


# ---- export --------------------------------------------------------------------------------


def test_passages_are_exported(filled: str, passages: Sequence[Passage]) -> None:
    """In the format of the file's name."""
    for name in ("out.jsonl", "out.jsonl.gz", "out.parquet"):
        done = command("export", name, "--store", filled)

        assert (0, f"5 passages exported to {name}\n", "") == done
        rows = [row for row in Corpus(name) if isinstance(row, Passage)]
        assert {passage.pid: passage for passage in passages} == {row.pid: row for row in rows}
    assert 5 == pq.read_metadata("out.parquet").num_rows
    done = command("export", "out.jsonl", "--store", filled, "--json")
    assert {"exported": 5, "file": "out.jsonl"} == json.loads(done.out)


def test_invalid_export_is_refused(filled: str) -> None:
    """A file of another format, and one that cannot be written; no file is left."""
    for name in ("out", "out.tsv"):
        done = command("export", name, "--store", filled)

        assert (2, "") == (done.status, done.out)
        formats = ".jsonl, .ndjson, .jsonl.gz, .ndjson.gz or .parquet"
        assert f"Error: output file must end in {formats}, got {name}\n" == done.err
    assert [] == list(Path().iterdir())
    done = command("export", "missing/out.jsonl", "--store", filled)

    expected = "Error: cannot write missing/out.jsonl: No such file or directory; name another file"
    assert (1, "", f"{expected}\n") == done
    Path("out.jsonl").mkdir()
    assert 2 == command("export", "out.jsonl", "--store", filled).status
