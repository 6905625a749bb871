"""Migration files: what is one, and what is told of one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.migration import load_migrations
from msmarco_qdrant.operations import AddPayloadIndex

INDEX = """
from msmarco_qdrant.operations import AddPayloadIndex

DESCRIPTION = "filters on the year by an index"
OPERATION = AddPayloadIndex("year", "integer")
"""


def test_our_migrations_are_named_and_described() -> None:
    """In the order of their numbers, each with a line about it."""
    migrations = load_migrations()
    assert "0001_create_passages" == migrations[0].name
    names = [migration.name for migration in migrations]
    assert sorted(names) == names
    assert all(migration.description for migration in migrations)


def test_a_folder_is_loaded_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    """By the files' names; those of other names are left alone."""
    (tmp_path / "helper.py").write_text("raise RuntimeError")
    (tmp_path / "README.md").write_text("our migrations")
    assert [] == load_migrations(tmp_path)
    (tmp_path / "0010_year.py").write_text(INDEX)
    (tmp_path / "0002_texts.py").write_text(
        "DESCRIPTION = 'shorter texts'\ndef up(store, plan): ...\n"
    )
    first, second = load_migrations(tmp_path)
    assert ("0002_texts", "0002", "shorter texts") == (first.name, first.number, first.description)
    assert ("0010_year", AddPayloadIndex("year", "integer")) == (second.name, second.operation)


@pytest.mark.parametrize(
    "text",
    [
        "DESCRIPTION = 'no operation'",
        "def up(store, plan): ...",
        "DESCRIPTION = 7\ndef up(store, plan): ...",
        "DESCRIPTION = 'a string'\nOPERATION = 'SetHnsw'",
        "DESCRIPTION = 'no function'\nup = 3",
        INDEX + "def up(store, plan): ...",
    ],
)
def test_a_file_that_is_no_migration_is_told(tmp_path: Path, text: str) -> None:
    """By its name and what is expected."""
    (tmp_path / "0007_broken.py").write_text(text)
    with pytest.raises(UsageError, match=r"0007_broken\.py is no migration: expected DESCRIPTION"):
        load_migrations(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("DESCRIPTION =", "SyntaxError"),
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        (INDEX.replace("integer", "geo"), "'year' cannot have an index of kind 'geo'"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_told(tmp_path: Path, text: str, told: str) -> None:
    """By its name and what Python says, operations with wrong values too."""
    (tmp_path / "0007_broken.py").write_text(text)
    with pytest.raises(UsageError, match=r"0007_broken\.py cannot be loaded") as caught:
        load_migrations(tmp_path)
    assert told in str(caught.value)


def test_two_files_of_one_number_are_refused(tmp_path: Path) -> None:
    """As their order would be a matter of their names."""
    for name in ("0003_year", "0003_lang", "0001_first"):
        (tmp_path / f"{name}.py").write_text(INDEX)
    with pytest.raises(UsageError, match=r"0003_lang and 0003_year .* have the same number"):
        load_migrations(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """It is not taken for an empty one."""
    with pytest.raises(UsageError, match="nowhere is no directory of migrations"):
        load_migrations(tmp_path / "nowhere")
