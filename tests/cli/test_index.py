"""The commands `index add`, `index remove` and `index list`."""

from __future__ import annotations

import json

from tests.cli.runner import command


def test_commands_add_list_and_remove(filled: str) -> None:
    """As text and as JSON; a filter uses the index."""
    place = ("--store", filled)
    assert "no indexes\n" == command("index", "list", *place).out
    done = command("index", "add", "year=integer", "lang=keyword", *place)
    assert (0, 2) == (done.status, len(done.out.splitlines())), done.err
    assert "year: no index -> integer: 5 payloads are read" in done.out
    again = command("index", "add", "year=integer", *place, "--json")
    added = [{"field": "year", "kind": "integer", "effect": "nothing changes: it has that index"}]
    assert {"collection": "msmarco", "added": added} == json.loads(again.out)
    assert "meta.year (integer)" in command("info", *place).out
    listed = json.loads(command("index", "list", *place, "--json").out)
    assert {"year": "integer", "lang": "keyword"} == listed["indexes"]
    assert 0 == command("index", "remove", "year", "lang", *place).status
    assert "no indexes\n" == command("index", "list", *place).out


def test_s5_a_field_with_dots_is_shown_once(filled: str) -> None:
    """The engine has an index more, for objects in lists; JSON of `info` has the engine's keys."""
    place = ("--store", filled)
    assert 0 == command("index", "add", "author.name=keyword", *place).status
    assert "author.name=keyword\n" == command("index", "list", *place).out
    shown = command("info", *place).out
    assert "payload indexes: meta.author.name (keyword), seq (integer)\n" in shown
    assert '"meta.author[].name": "keyword"' in command("info", *place, "--json").out
    assert "author" not in command("check", "msmarco", *place).out


def test_wrong_usage_is_one_line(filled: str) -> None:
    """Another kind, a missing index, a malformed argument; the advice works."""
    place = ("--store", filled)
    assert 0 == command("index", "add", "year=integer", *place).status
    for arguments, message in (
        (["add", "year=float"], "has one of kind integer, got float: remove it with"),
        (["remove", "lang"], "must be one with an index in 'msmarco' (year), got 'lang'"),
        (["add", "year"], "an index must be FIELD=KIND"),
        (["add", "year=integer", "year=float"], "an index must have one KIND per field"),
    ):
        done = command("index", *arguments, *place)
        assert (2, "") == (done.status, done.out)
        assert message in done.err
    for arguments in (["remove", "year"], ["add", "year=float"]):
        assert 0 == command("index", *arguments, *place).status
    assert "year=float\n" == command("index", "list", *place).out
