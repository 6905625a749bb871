"""The page about similar and diverse hits is true."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from tests.docs.pages import blocks, output_after, page


def test_python_blocks_print_the_shown_output() -> None:
    """In their order, over one collection."""
    text, names = page("similar.md"), dict[str, Any]()
    for block in blocks(text, "python"):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(block, names)  # noqa: S102  # the page's own code
        assert output_after(text, block) == output.getvalue()
    assert names
