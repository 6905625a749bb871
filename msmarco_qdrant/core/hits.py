"""Hits of one query: a list that notebooks show as a table."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.core.short_text import shorten

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 300  # characters of a text
_EXTRA = ("vector", "snippets", "collection")


class Hits(list[Hit]):
    """The hits of one query, best first: a list, shown as a table in a notebook.

    Args:
        hits: The hits.
        cursor: The cursor of the next page, or a function that returns it, which is called once,
            when the cursor is read.
    """

    __slots__ = ("_cursor",)

    def __init__(
        self, hits: Iterable[Hit] = (), *, cursor: str | Callable[[], str | None] | None = None
    ) -> None:
        super().__init__(hits)
        self._cursor = cursor

    @property
    def cursor(self) -> str | None:
        """The cursor of the next page; None after the last page.

        Pass it as `cursor=` with the same query and options.
        """
        if callable(self._cursor):
            self._cursor = self._cursor()
        return self._cursor

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, ([*self], self.cursor)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return each hit as a dictionary with `rank`, `pid`, `score`, `text` and `meta`.

        Hits with a vector, snippets or a collection have `vector`, `snippets` or `collection` as
        well.
        """
        return [hit_to_dict(hit) for hit in self]

    def to_pandas(self) -> pd.DataFrame:
        """Return a DataFrame with the columns of `to_dicts`, one row per hit.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        import pandas as pd

        rows = self.to_dicts()
        extra = [name for name in _EXTRA if any(name in row for row in rows)]
        return pd.DataFrame(rows, columns=["rank", "pid", "score", "text", "meta", *extra])

    def _repr_html_(self) -> str:
        """Return a table for notebooks; texts are escaped, and cut after 300 characters."""
        rows = "".join(map(_html_row, self))
        head = "".join(f"<th>{name}</th>" for name in ("", "pid", "score", "text", "meta"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _restore(hits: Iterable[Hit], cursor: str | None) -> Hits:
    return Hits(hits, cursor=cursor)


def hit_to_dict(hit: Hit) -> dict[str, Any]:
    """Return a hit as a dictionary; see `Hits.to_dicts`."""
    values: dict[str, Any] = {
        "rank": hit.rank,
        "pid": hit.pid,
        "score": hit.score,
        "text": hit.text,
        "meta": hit.meta,
    }
    if hit.vector is not None:
        values["vector"] = [*hit.vector]
    if hit.snippets:
        values["snippets"] = [*hit.snippets]
    if hit.collection is not None:
        values["collection"] = hit.collection
    return values


def _html_row(hit: Hit) -> str:
    meta = json.dumps(hit.meta, ensure_ascii=False) if hit.meta else ""
    place = "" if hit.collection is None else f"{hit.collection}: "
    cells = (
        str(hit.rank),
        f"{place}{hit.pid}",
        f"{hit.score:.4f}",
        shorten(hit.text, _SHOWN),
        shorten(meta, _SHOWN),
    )
    row = "".join(f'<td style="text-align: left">{html.escape(cell)}</td>' for cell in cells)
    return f"<tr>{row}</tr>"
