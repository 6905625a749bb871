"""The documentation site: its reference is complete, and MkDocs builds it strictly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import msmarco_qdrant
from tests.conftest import ROOT
from tests.test_public import PUBLIC

REFERENCE = ROOT / "docs" / "reference" / "python"
_ENTRY = re.compile(r"^::: msmarco_qdrant\.(\S+)", re.MULTILINE)


def entries() -> list[str]:
    """The names that the pages of the reference show."""
    return [name for page in REFERENCE.glob("*.md") for name in _ENTRY.findall(page.read_text())]


def test_every_public_name_has_its_entry() -> None:
    """Once each; the entry of a module has all of its names."""
    found = entries()
    assert sorted(set(found)) == sorted(found)
    of_modules = {
        name for module, names in PUBLIC.items() if module in found for name in names.split()
    }
    public = {
        *msmarco_qdrant.__all__,
        *(name for names in PUBLIC.values() for name in names.split()),
    }
    assert set() == public - {"__version__"} - of_modules - {
        name.rpartition(".")[2] for name in found
    }


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    """No broken link, no page outside of the navigation; the made pages have their content."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)
    expected = {
        "index.html": "Search passages by meaning",
        "fastapi.html": "A search service in one process",
        "notebook.html": "Curiosity drives on Mars and drills into its rocks.</td>",
        "reference/command-line.html": "msmarco-qdrant migrate reembed [OPTIONS]",
        "reference/http.html": "POST /search",
        "reference/python/search.html": "msmarco_qdrant.SearchClient.search_many",
    }
    for page, text in expected.items():
        assert text in (tmp_path / page).read_text("utf-8")
