"""Tests of loading migration files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from msmarco_qdrant.collection.migration import load_migrations
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.migrate.operations import AddPayloadIndex

INDEX = """
from msmarco_qdrant.operations import AddPayloadIndex

DESCRIPTION = "filters on the year by an index"
OPERATION = AddPayloadIndex("year", "integer")
"""


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


NOT_ONE = r"0007_broken\.py is not a migration: it must define DESCRIPTION"
SET_HNSW = "from msmarco_qdrant.operations import SetHnsw\nDESCRIPTION = 'x'\nOPERATION = SetHnsw"
UP = "DESCRIPTION = 'x'\ndef up(store, plan): ...\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DESCRIPTION = 'no operation'", NOT_ONE),
        ("def up(store, plan): ...", NOT_ONE),
        (UP + "DESCRIPTION = 7", NOT_ONE),
        ("DESCRIPTION = 'a string'\nOPERATION = 'SetHnsw'", NOT_ONE),
        ("DESCRIPTION = 'no function'\nup = 3", NOT_ONE),
        (INDEX + UP, NOT_ONE),
        (
            SET_HNSW,
            r"0007_broken\.py must be an instance, such as SetHnsw\(\.\.\.\), got the class",
        ),
        (UP + "COST = None", r"COST of .*0007_broken\.py must be a line of text, got None"),
        (UP + "COST = ['a line']", r"COST of .* must be a line of text, got \['a line'\]"),
        ("DESCRIPTION =", r"0007_broken\.py cannot be loaded: SyntaxError"),
        ("import nothing_at_all", r"0007_broken\.py cannot be loaded: .* 'nothing_at_all'"),
        (
            INDEX.replace("integer", "place"),
            r"cannot be loaded: .* of 'year' must be one of keyword",
        ),
    ],
)
def test_a_file_that_is_not_a_migration(tmp_path: Path, text: str, message: str) -> None:
    """The error names the file and the rule, before anything runs."""
    (tmp_path / "0007_broken.py").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_migrations(tmp_path)


@pytest.mark.parametrize("name", ["2_year.py", "0002-year.py", "0002_Year.py", "00002_year.py"])
def test_a_malformed_file_name_is_refused(tmp_path: Path, name: str) -> None:
    """Otherwise the file would be skipped silently."""
    (tmp_path / name).write_text(INDEX)
    with pytest.raises(UsageError, match=rf"must be four digits, .*{name}"):
        load_migrations(tmp_path)


DATACLASS = """
from __future__ import annotations
from dataclasses import KW_ONLY, dataclass

DESCRIPTION = "an operation of one's own"

@dataclass(frozen=True)
class Own:
    _: KW_ONLY
    year: int

    def cost(self, target) -> str:
        return "nothing"

    def apply(self, target) -> None: ...

OPERATION = Own(year={year})
"""


def test_an_operation_of_ones_own_may_be_a_dataclass(tmp_path: Path) -> None:
    """Whose annotations are looked up in its module; folders do not know of each other."""
    for year in (1895, 1896):
        (tmp_path / str(year)).mkdir()
        (tmp_path / str(year) / "0001_own.py").write_text(DATACLASS.format(year=year))
    first, second = (load_migrations(tmp_path / str(year))[0] for year in (1895, 1896))
    assert ("Own(year=1895)", "Own(year=1896)") == (str(first.operation), str(second.operation))
    modules = [sys.modules[type(one.operation).__module__] for one in (first, second)]
    assert [first.operation, second.operation] == [vars(one)["OPERATION"] for one in modules]


@pytest.mark.parametrize(
    ("raised", "error"), [("ValueError", UsageError), ("KeyboardInterrupt", KeyboardInterrupt)]
)
def test_a_file_that_failed_leaves_no_module(
    tmp_path: Path, raised: str, error: type[BaseException]
) -> None:
    """Half a module must not be found by anyone."""
    (tmp_path / "0007_half_of_it.py").write_text(f"raise {raised}")
    with pytest.raises(error):
        load_migrations(tmp_path)
    assert [] == [name for name in sys.modules if name.endswith("0007_half_of_it")]


def test_two_files_of_one_number_are_refused(tmp_path: Path) -> None:
    """As their order would be a matter of their names."""
    for name in ("0003_year", "0003_lang", "0001_first"):
        (tmp_path / f"{name}.py").write_text(INDEX)
    with pytest.raises(UsageError, match=r"0003_lang and 0003_year .* have the same number"):
        load_migrations(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """It is not taken for an empty one."""
    with pytest.raises(UsageError, match="nowhere is not a directory of migrations"):
        load_migrations(tmp_path / "nowhere")
