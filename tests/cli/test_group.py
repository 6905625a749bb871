"""Errors of the library in the words of the command line."""

from __future__ import annotations

import pytest

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.cli.group import name_options


@pytest.mark.parametrize(
    ("name", "message", "expected"),
    [
        ("search", "pass model='x y', or another", "pass --model 'x y', or another"),
        ("search", "pass dense_weight=0.5", "pass --dense-weight 0.5"),
        ("search", "pass reranker=tiny", "pass --reranker tiny"),
        ("serve", "pass reranker=tiny", "pass --reranker tiny"),
        ("ingest", "or pass allow_rejects=True", "or pass --allow-rejects"),
        ("search", "pass --model x (model='x') or", "pass --model x or"),
        ("evaluate", "others=[x.trec]", "--compare [x.trec]"),
        ("get", "pass model='x'", "pass model='x'"),
        ("list", "order_by must be a field", "--order-by must be a field"),
        ("search", "offset + limit must be", "--offset + --limit must be"),
        ("search", "field must be a name", "field must be a name"),
        (
            "search",
            "pass either offset or cursor, not both",
            "pass either --offset or --cursor, not both",
        ),
        ("search", "a.model=x, https://host/?model=x", "a.model=x, https://host/?model=x"),
    ],
)
def test_keywords_become_options(name: str, message: str, expected: str) -> None:
    """Where the command has an option of that name; all else stays."""
    assert expected == name_options(message, cli.commands[name])
