"""The output of `ingest --dry-run`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.cli.output import echo, print_json

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Passage
    from msmarco_qdrant.sources.preview import SourcePreview

_SHOWN = 100


def print_previews(previews: Sequence[SourcePreview], *, as_json: bool) -> None:
    """Print what an ingest would read, as text or JSON."""
    if as_json:
        print_json({"dry_run": True, "sources": [_as_json(preview) for preview in previews]})
        return
    for preview in previews:
        echo(f"{preview.source}: {preview.shape or 'refused'}")
        for passage in preview.first:
            echo(f"  line {passage.line}: {show_passage(passage)}")
        for reject in preview.rejects:
            echo(f"  line {reject.line} is rejected: {reject.reason}")
        if preview.error is not None:
            echo(f"  error: {preview.error}")
        echo(f"  {preview.passages:,} passages, {preview.rejected:,} rejected")
    echo("nothing was written (--dry-run)")


def show_passage(passage: Passage) -> str:
    """Return a passage in one line."""
    text = passage.text if len(passage.text) <= _SHOWN else f"{passage.text[:_SHOWN]}..."
    meta = f"  {json.dumps(passage.meta, ensure_ascii=False)}" if passage.meta else ""
    return f"pid {passage.pid}  {text}{meta}"


def passage_json(passage: Passage) -> dict[str, Any]:
    """Return the pid, the text and the meta of a passage."""
    return {"pid": passage.pid, "text": passage.text, "meta": passage.meta}


def _as_json(preview: SourcePreview) -> dict[str, Any]:
    from msmarco_qdrant.sources.rejects import reject_to_json

    return {
        "source": preview.source,
        "shape": preview.shape,
        "passages": preview.passages,
        "rejected": preview.rejected,
        "first": [{"line": row.line, **passage_json(row)} for row in preview.first],
        "rejects": [reject_to_json(reject) for reject in preview.rejects],
        "error": preview.error,
    }
