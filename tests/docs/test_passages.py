"""The examples of docs/passages.md and docs/tenants.md print what is shown."""

from __future__ import annotations

import contextlib
import io

import pytest

from tests.docs.pages import blocks, output_after, page


@pytest.mark.parametrize("name", ["passages.md", "tenants.md"])
def test_the_example_prints_what_is_shown(name: str) -> None:
    """In memory, without a model."""
    text = page(name)
    (block,) = blocks(text, "python")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(block, name, "exec"), {})  # noqa: S102  # the page's own
    assert output_after(text, block) == shown.getvalue()
