"""Datasets by name: the adapter, with a dataset of local files. Nothing is downloaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import MissingExtraError, SourceError, UsageError
from msmarco_qdrant.evaluation.datasets import load_qrels, load_queries
from tests.evaluation.dataset import register


def test_registered_dataset_is_loaded(library: Any, tmp_path: Path) -> None:
    """Its queries and judgments."""
    register(
        library,
        tmp_path,
        "local/small",
        queries_tsv="q1\thow big is london\nq2\tgr\u00f6\u00dfe\n",
        qrels_trec="q1 0 a 2\nq1 0 b 0\nq2 0 a 1\n",
    )

    expected = [Query("q1", "how big is london"), Query("q2", "gr\u00f6\u00dfe")]
    assert expected == load_queries("local/small")
    assert {"q1": {"a": 2, "b": 0}, "q2": {"a": 1}} == load_qrels("local/small")


@pytest.mark.usefixtures("library")
def test_unknown_name_is_refused() -> None:
    """With the nearest name."""
    with pytest.raises(UsageError, match=r"did you mean 'msmarco-passage/dev/small'\?"):
        load_queries("msmarco-passage/dev/smal")
    with pytest.raises(UsageError, match=r"no dataset '\?': see https://ir-datasets\.com"):
        load_qrels("?")


def test_dataset_without_the_part_is_refused(library: Any, tmp_path: Path) -> None:
    """The message lists its parts."""
    register(library, tmp_path, "local/queries", queries_tsv="q1\tone\n")

    with pytest.raises(UsageError, match="'local/queries' has no qrels, only queries"):
        load_qrels("local/queries")


def test_unreadable_dataset_is_refused(library: Any, tmp_path: Path) -> None:
    """The message contains the library's; a failed download looks the same."""
    register(library, tmp_path, "local/broken", queries_tsv="q1 one\n", qrels_trec="q1 0 a high\n")

    with pytest.raises(SourceError, match=r"cannot load the queries of dataset 'local/broken'"):
        load_queries("local/broken")
    with pytest.raises(SourceError, match=r"cannot load the qrels of dataset 'local/broken'"):
        load_qrels("local/broken")


def test_two_grades_of_one_passage_are_refused(library: Any, tmp_path: Path) -> None:
    """As in a file."""
    register(library, tmp_path, "local/two", qrels_trec="q1 0 a 1\nq1 0 a 2\n")

    with pytest.raises(SourceError, match="local/two: passage 'a' has the grades 1 and 2"):
        load_qrels("local/two")


def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    """The library makes it when it is imported, by default in the home folder."""
    (tmp_path / "file").touch()
    program = (
        "from msmarco_qdrant.errors import SourceError\n"
        "from msmarco_qdrant.evaluation.datasets import load_qrels\n"
        "try:\n    load_qrels('x')\nexcept SourceError as exc:\n    print(exc)\n"
    )
    environment = {**os.environ, "IR_DATASETS_HOME": str(tmp_path / "file" / "home")}

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith("ir_datasets cannot create its folder: ")
    assert "set IR_DATASETS_HOME to a writable one" in done.stdout


def test_missing_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package to install."""
    monkeypatch.setitem(sys.modules, "ir_datasets", None)  # the import system's "not installed"

    with pytest.raises(MissingExtraError, match=r"pip install 'msmarco-qdrant\[datasets\]'"):
        load_queries("x")
