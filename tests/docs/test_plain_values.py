"""The table of plain values in docs/your-data.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import msmarco_qdrant
from msmarco_qdrant import Bm25Settings, Prompts, StorageSettings
from msmarco_qdrant.core.arguments import to_settings
from msmarco_qdrant.encoding.options import to_encoder_options
from msmarco_qdrant.ingest.prune import to_policy
from msmarco_qdrant.search.options import to_fusion

_PAGE = Path(__file__).parents[2] / "docs" / "your-data.md"
_CONVERSIONS: dict[str, Callable[[Any], object]] = {
    "`storage`": lambda value: to_settings(StorageSettings, value, "storage", "quantization"),
    "`bm25`": lambda value: to_settings(Bm25Settings, value, "bm25", "language"),
    "`prompts`": lambda value: to_settings(Prompts, value, "prompts"),
    "`prune`": to_policy,
    "`encoder_options`": to_encoder_options,
    "`fusion` of a search": to_fusion,
}


def rows() -> list[tuple[str, ...]]:
    """The cells of the table."""
    lines = _PAGE.read_text("utf-8").splitlines()
    table = lines[lines.index("| argument | plain value | the same as |") + 2 :]
    shown = table[: table.index("")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in shown]


@pytest.mark.parametrize(("argument", "plain", "same"), rows())
def test_a_plain_value_is_the_object_of_the_table(argument: str, plain: str, same: str) -> None:
    """As an argument of that name."""
    names = {name: getattr(msmarco_qdrant, name) for name in msmarco_qdrant.__all__}
    value, expected = (eval(code.strip("`"), names) for code in (plain, same))  # noqa: S307
    assert expected == _CONVERSIONS[argument](value)


def test_every_argument_is_in_the_table() -> None:
    """Each conversion has a row."""
    assert _CONVERSIONS.keys() == {argument for argument, _, _ in rows()}
