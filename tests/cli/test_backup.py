"""`backup` and `restore`, as a person or a script uses them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.runner import command


def test_v4_backup_and_restore_report_as_json(filled: str, tmp_path: Path) -> None:
    """With the fields of the reports; an error is one line."""
    saved, other = str(tmp_path / "saved"), str(tmp_path / "other")
    portable = ("--out", saved, "--portable", "--store", filled)
    done = command("backup", "msmarco", *portable, "--json")
    assert 0 == done.status, done.err
    report = json.loads(done.out)
    assert ("msmarco", "msmarco__0001", "portable", 1) == (
        report["collection"],
        report["physical"],
        report["kind"],
        report["files"],
    )
    done = command("restore", saved, "--store", other, "--name", "copy", "--json")
    assert 0 == done.status, done.err
    restored = json.loads(done.out)
    assert ("copy", report["passages"]) == (restored["collection"], restored["passages"])

    for arguments, text in (
        (("backup", "msmarco", *portable), "contains a backup already"),
        (("backup", "books", "--out", other, "--store", filled), "no collection 'books'"),
        (("restore", saved, "--store", other, "--name", "copy"), "--name copy-restored"),
        (("restore", other, "--store", other), "must be a directory that"),
    ):
        done = command(*arguments)
        assert (1, "") == (done.status, done.out)
        assert text in done.err
        assert 1 == len(done.err.splitlines())
