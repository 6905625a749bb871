"""Odd and hostile files through `ingest --dry-run` and `ingest`: passages, or a one-line error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from msmarco_qdrant import get_passages, ingest_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.errors import MsmarcoQdrantError
from msmarco_qdrant.sources.preview import preview_sources
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import Outcome, command
from tests.sources.odd_files import DATA_SETS, PLAIN, READ, REFUSED, Readable, Refused

_FLOOR = 1 << 15  # bytes that a file of rejects may have for any source


def put(content: bytes) -> str:
    """Write a source whose name gives nothing away, and return its path."""
    Path("source.tsv.gz").write_bytes(content)
    return "source.tsv.gz"


def is_clean(done: Outcome) -> bool:
    """True without a traceback, and with at most one line of an error."""
    errors = [line for line in done.err.splitlines() if line.startswith("Error")]
    return "Traceback" not in done.err and len(errors) <= 1


def written() -> list[str]:
    """Names of the files in the directory, without the source."""
    return sorted(path.name for path in Path().iterdir() if path.name != "source.tsv.gz")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_there_are_enough() -> None:
    """At least sixty files, and ten data sets."""
    assert len(READ) + len(REFUSED) >= 60
    assert len(DATA_SETS) >= 10


@pytest.mark.parametrize("name", READ)
def test_s2_s3_dry_run_shows_the_passages(name: str) -> None:
    """The first three with their meta, all counts; nothing is written."""
    odd = READ[name]
    done = command("ingest", put(odd.content), "--dry-run", "--json", *odd.options)

    assert is_clean(done)
    (source,) = json.loads(done.out)["sources"]
    assert None is source["error"]
    found = [Passage(row["pid"], row["text"], row["meta"]) for row in source["first"]]
    assert odd.passages[:3] == found
    assert (len(odd.passages), odd.rejected) == (source["passages"], source["rejected"])
    assert (3 if odd.rejected else 0) == done.status
    assert [] == written()


@pytest.mark.parametrize("name", REFUSED)
def test_s2_s3_c11_refused_files_leave_nothing(name: str) -> None:
    """One line says what was seen; no store, no collection, no large file of rejects."""
    odd = REFUSED[name]
    source = put(odd.content)
    shown = command("ingest", source, "--dry-run", *odd.options)
    assert is_clean(shown)
    assert [] == written()
    assert (3 if name == "one bad row" else 1) == shown.status
    assert name == "one bad row" or odd.message in shown.out

    done = command("ingest", source, "--store", "store", "--rejects", "rejects", *odd.options)

    assert (1, True) == (done.status, is_clean(done)), done.err
    assert odd.message in done.err.splitlines()[-1]
    assert written() in ([], ["rejects"])
    check_rejects(odd.content)


def check_rejects(source: bytes) -> None:
    """The file of rejects is at most twice the source, or 32 KiB."""
    rejects = Path("rejects")
    size = rejects.stat().st_size if rejects.exists() else 0
    assert size <= max(2 * len(source), _FLOOR)


def check_ingest(odd: Readable, tiny: str) -> None:
    """An ingest stores the passages, all of them."""
    arguments = ["--store", "store", "--rejects", "rejects", "--model", tiny, "--json"]
    done = command("ingest", put(odd.content), *arguments, *odd.options)

    assert is_clean(done)
    report = json.loads(done.out)
    assert (len(odd.passages), odd.rejected) == (report["written"], report["rejected"]), done.err
    assert (3 if odd.rejected else 0) == done.status
    stored = get_passages("store", [passage.pid for passage in odd.passages])
    assert odd.passages == list(stored.values())
    check_rejects(odd.content)


@pytest.mark.parametrize("name", ["dpr psgs_w100.tsv", "hugging face parquet"])
def test_s2_ingest_stores_the_passages(tiny: str, name: str) -> None:
    """Of two data sets."""
    check_ingest(READ[name], tiny)


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_s2_s3_ingest_stores_the_passages_of_all(tiny: str, name: str) -> None:
    """Of every file."""
    check_ingest(READ[name], tiny)


def test_s2_dry_run_in_words() -> None:
    """The shape of each source, its first rows, rejects and counts; an error ends with 1."""
    Path("a.tsv").write_bytes(b"id\ttext\ttitle\n1\tIt flows.\tRiver\n2\tx\n" + b"3\ty\tz\n" * 2)
    Path("b.tsv").write_bytes(b"1\t2\t3\n")
    done = command("ingest", "a.tsv", "b.tsv", "--dry-run")

    assert (1, "") == (done.status, done.err)
    assert [
        "a.tsv: TSV with a header: id, text, title; 3 columns",
        "  line 2: pid 1  River It flows.",
        "  line 4: pid 3  z y",
        "  line 3 is rejected: a row must have 3 columns (id, text, title), got 2",
        "  line 5 is rejected: pid '3' was read before in this run; the first one is used",
        "  2 passages, 2 rejected",
        "b.tsv: refused",
    ] == done.out.splitlines()[:7]
    assert done.out.endswith("0 passages, 0 rejected\nnothing was written (--dry-run)\n")
    limited = command("ingest", "a.tsv", "--dry-run", "--limit", "1", "--json")
    assert (0, 1) == (limited.status, json.loads(limited.out)["sources"][0]["passages"])
    assert 0 == command("ingest", "a.tsv", "--dry-run", "--allow-rejects").status


def test_s2_dry_run_of_standard_input_loads_no_model() -> None:
    """Neither torch nor an engine is imported, and nothing is written."""
    program = (
        "import sys\n"
        "from msmarco_qdrant.cli.app import main\n"
        "status = main(['ingest', '-', '--dry-run', '--model', 'nowhere', '--store', 'new'])\n"
        "loaded = {'torch', 'qdrant_edge', 'qdrant_client', 'transformers'} & set(sys.modules)\n"
        "print(status, sorted(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=PLAIN, capture_output=True, check=True
    )
    assert done.stdout.decode().splitlines()[-1] == "0 []"
    assert done.stdout.startswith(b"-: TSV: pid, text; 2 columns\n  line 1: pid 7  A river")
    assert [] == written()


def test_s2_preview_in_python() -> None:
    """The same values; an invalid argument is an error."""
    (preview,) = preview_sources(put(PLAIN), text_field=None)
    assert ("TSV: pid, text; 2 columns", 2, 0) == (
        preview.shape,
        preview.passages,
        preview.rejected,
    )
    with pytest.raises(MsmarcoQdrantError, match="format must be one of"):
        preview_sources(put(PLAIN), format="xml")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def filled_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a passage."""
    store = str(tmp_path_factory.mktemp("filled") / "store")
    ingest_passages([Passage("1", "sea")], store, encoder=HashingEncoder(), optimize=False)
    return store


def run(arguments: Sequence[str], content: bytes) -> Outcome:
    """A command that reads SOURCE."""
    source = put(content)
    return command(*(source if word == "SOURCE" else word for word in arguments))


@pytest.mark.parametrize("name", ["tar.gz", "utf-16"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "SOURCE", "--out", "vectors"),
        ("search", "--queries", "SOURCE", "--run", "run.trec", "--mode", "bm25"),
        ("evaluate", "--queries", "SOURCE", "--qrels", "SOURCE", "--mode", "bm25"),
        ("delete", "--from", "SOURCE"),
    ],
    ids=lambda words: words[0],
)
def test_s3_every_command_refuses_what_is_no_text(
    filled_store: str, arguments: Sequence[str], name: str
) -> None:
    """The message is the same wherever a file is read."""
    odd: Refused = REFUSED[name]
    place = [] if arguments[0] == "encode" else ["--store", filled_store]
    done = run([*arguments, *place], odd.content)
    assert (1, True) == (done.status, is_clean(done)), done.err
    assert odd.message in done.err
    assert not Path("vectors").exists()
