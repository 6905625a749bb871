"""Every block of code in README and the guides is run by a test, or is listed with its reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {
    "git clone": "it installs",
    "pip install": "it installs",
    "eval ": "an interactive shell, tests/cli/test_completion.py",
    "hf download": "the model hub",
    "cp .env.example": "Docker",
    "docker compose": "Docker",
    "export MSMARCO_QDRANT_STORE=https": "Qdrant Cloud",
    "msmarco-qdrant ingest products.jsonl --model intfloat": "the model hub",
    "msmarco-qdrant evaluate --queries queries.dl19.tsv": "MS MARCO's data, benchmarks/quality.py",
    "msmarco-qdrant evaluate --queries queries.dev.tsv": "the same, benchmarks/tune.py",
    "msmarco-qdrant evaluate --store build/demo": "the store of `make demo`",
    "msmarco-qdrant train --queries": "minutes of training, tests/cli/test_train.py",
    "msmarco-qdrant adopt docs": "a server, tests/cli/test_adopt.py",
    "msmarco-qdrant check msmarco": "a damaged collection, tests/collection/test_check.py",
    "msmarco-qdrant judge --judge ms-marco": "the model hub, tests/train/test_judge.py",
    "msmarco-qdrant choose --negatives": "mined candidates, tests/cli/test_choose.py",
    "msmarco-qdrant improve --queries": "the same in tests/docs/test_train.py",
    "msmarco-qdrant mine --queries": "the same in tests/docs/test_train_steps.py",
    "uvicorn fastapi_app:app": "tests/docs/test_fastapi.py reads it",
}
"""Beginnings of blocks that no test runs as they are, with what they need or where they are run."""
PROGRAMS = {
    "cat",
    "cp",
    "curl",
    "docker",
    "eval",
    "export",
    "git",
    "hf",
    "kubectl",
    "make",
    "mkdir",
}
PROGRAMS |= {"msmarco-qdrant", "pip", "printf", "uvicorn"}


def code_blocks(text: str) -> list[str]:
    """The blocks of Python and of commands; files that a page includes are not among them."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [(language, block.removeprefix("$ ")) for language, block in found]
    return [
        block
        for language, block in blocks
        if language == "python" or (not language and block.split()[0] in PROGRAMS)
    ]


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_every_block_is_run_or_listed(path: Path) -> None:
    """A page with other blocks is named in a test of this folder or of the integrations."""
    beginnings = tuple(NOT_RUN)
    run = [block for block in code_blocks(path.read_text()) if not block.startswith(beginnings)]
    folders = [ROOT / "tests" / name for name in ("docs", "integrations", "distributed")]
    tests = [test.read_text() for folder in folders for test in folder.glob("*.py")]
    assert not run or any(path.name in text for text in tests), run[0]


def test_every_listed_block_exists() -> None:
    """And the list has no other."""
    found = [block for path in PAGES for block in code_blocks(path.read_text())]
    assert [] == [one for one in NOT_RUN if not any(block.startswith(one) for block in found)]
