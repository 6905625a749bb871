"""docs/adopt.md: its Python prints what it shows; tests/cli/test_adopt.py runs its commands."""

from __future__ import annotations

import contextlib
import io

from tests.docs.pages import blocks, output_after, page


def test_python_block_prints_the_shown_output() -> None:
    """In an empty directory."""
    text = page("adopt.md")
    (block,) = blocks(text, "python")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(block, {})  # noqa: S102  # the page's own code
    assert output_after(text, block) == output.getvalue()
