"""Texts of passages, files and servers on a terminal, and on streams of other encodings."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import click
import pytest

import msmarco_qdrant.cli
from msmarco_qdrant.cli.output import (
    LogFormatter,
    echo,
    print_content,
    print_error,
    print_hits,
    print_json,
)
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command

HOSTILE = "whale \x1b[2J\x1b]0;x\x07 \x9b31m \x7f \u202egpj.exe\u2069 \u2028 \U0001f40b"
HIT = Hit(1, "p\x1b[1m\n2", 0.5, HOSTILE, {"tag\x9b": "\u202e"})
_RAW = "\x1b\x07\x9b\x7f\u202e\u2069\u2028"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a hostile passage."""
    place = tmp_path_factory.mktemp("hostile") / "store"
    passage = Passage(HIT.pid, HOSTILE, {"tag\x9b": "\u202e"})
    ingest_passages([passage], place, encoder=HashingEncoder(), optimize=False)
    return str(place)


class Stream(io.TextIOWrapper):
    """A stream of an encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding)

    @property
    def content(self) -> bytes:
        """The bytes written."""
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue()


def test_s11_hits_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A pid with a line end is one line."""
    print_hits([HIT], as_json=False)
    out = capsys.readouterr().out

    assert r"  1  0.5000  p\x1b[1m\n2" == out.splitlines()[0]
    assert r"whale \x1b[2J\x1b]0;x\x07 \x9b31m \x7f \u202egpj.exe\u2069" in " ".join(out.split())
    assert not any(character in out for character in _RAW)
    assert "\U0001f40b" in out


def test_s11_line_ends_of_a_text_are_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    """As before: a text is a paragraph."""
    print_content("a\r\nb\tc", {})

    assert "     a  b c\n" == capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8", "utf-16"])
def test_s11_json_is_readable_in_every_encoding(encoding: str) -> None:
    """UTF-8 or ASCII, and equal to the value."""
    stream = Stream(encoding)
    with redirect_stdout(stream):
        print_json([HOSTILE, "\udcff"])
    content = stream.content.decode(encoding)

    assert [HOSTILE, "\udcff"] == json.loads(content)
    assert not any(character in content for character in _RAW)
    assert ("utf-8" == encoding) == ("\U0001f40b" in content)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_s11_missing_characters_are_replaced(encoding: str) -> None:
    """On both streams, instead of a traceback."""
    out, err = Stream(encoding), Stream(encoding)
    with redirect_stdout(out), redirect_stderr(err):
        echo("\U0001f40b \xfc")
        echo("\U0001f40b \xfc", err=True)

    expected = rb"\U0001f40b " + (rb"\xfc" if encoding == "ascii" else b"\xfc") + b"\n"
    assert expected == out.content == err.content


def test_s11_errors_are_one_line() -> None:
    """Names of files, values of options, and messages of servers."""
    cases = [
        ("search", "x", "--store", "no\x1b[2J\nstore"),
        ("ingest", "no\x9b\nfile"),
        ("search", "x", "--limit", "\x1b[2J\u202e"),
        ("\x1b[2J",),
        ("search", "x", "--\x1b[2J"),
        ("get", "\udcff\x1b"),
    ]
    for arguments in cases:
        done = command(*arguments)
        assert 0 != done.status
        assert "Error: " in done.err.splitlines()[-1]
        assert not any(character in done.out + done.err for character in _RAW), arguments


def test_s11_error_of_a_server_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """Of any class."""
    print_error(click.ClickException("bad \x1b[2J \u202e"))

    assert ("", "Error: bad \\x1b[2J \\u202e\n") == capsys.readouterr()


def test_s11_commands_escape_what_a_store_contains(store: str) -> None:
    """Get, search and JSON, with the same content."""
    found = command("get", HIT.pid, "--store", store)
    assert (0, r"p\x1b[1m\n2") == (found.status, found.out.splitlines()[0])
    missing = command("get", "\x1b[2J", "--store", store)
    as_json = command("get", HIT.pid, "--store", store, "--json")
    assert HOSTILE == json.loads(as_json.out)["text"]
    words = command("search", "whale", "--mode", "bm25", "--store", store)
    assert r"p\x1b[1m\n2" in words.out
    for done in (found, missing, as_json, words):
        assert not any(character in done.out + done.err for character in _RAW)


def test_s11_log_lines_are_escaped() -> None:
    """Own messages are one line; a traceback and the lines of other libraries stay lines."""
    form = LogFormatter("%(levelname)s: %(message)s")

    def line(name: str, error: Exception | None = None) -> str:
        info = (type(error), error, None) if error else None
        record = logging.LogRecord(name, logging.WARNING, "", 1, "a\n\x1b%s", ("\x9b",), info)
        return form.format(record)

    assert r"WARNING: a\n\x1b\x9b" == line("msmarco_qdrant.stores")
    assert "WARNING: a\n\\x1b\\x9b" == line("torch")
    assert r"ValueError: \x1b" == line("torch", ValueError("\x1b")).splitlines()[-1]


def test_s11_all_commands_print_through_one_function() -> None:
    """Else a new command would print raw controls."""
    calls = []
    for path in Path(msmarco_qdrant.cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name.endswith((".echo", ".secho", ".echo_via_pager")) or name == "print":
                    calls.append(path.name)

    assert ["output.py", "output.py"] == sorted(calls)


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
    ],
    ids=["latin-1", "ascii", "no-utf8", "c"],
)
def test_s11_terminals_of_other_encodings(store: str, environment: dict[str, str]) -> None:
    """A whole program, text and JSON, to a pipe."""
    words = ["-m", "msmarco_qdrant", "get", HIT.pid, "--store", store]
    for more in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, *words, *more],
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        )
        assert (0, b"") == (done.returncode, done.stderr)
        assert not any(raw in done.stdout for raw in (b"\x1b", b"\x07", b"\x7f"))
        text = done.stdout.decode("utf-8")
        if more:
            assert HOSTILE == json.loads(text)["text"]
