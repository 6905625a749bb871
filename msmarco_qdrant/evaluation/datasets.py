"""Adapter of `ir_datasets`: queries and judgments of public collections by name.

The library downloads data on first use and keeps it in `~/.ir_datasets`, or in the folder of the
environment variable `IR_DATASETS_HOME`, which it creates when it is imported. The tests register a
dataset of local files; they download nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import MissingExtraError, SourceError, UsageError
from msmarco_qdrant.evaluation.qrels import Judgment, collect_qrels
from msmarco_qdrant.evaluation.records import Qrels

_T = TypeVar("_T")
# A failed download, a wrong digest or format, a full disk, data that users must download themselves
_FAILURES = (OSError, RuntimeError, ValueError, EOFError, KeyError)


def load_queries(name: str) -> list[Query]:
    """Load the queries of a dataset such as "msmarco-passage/trec-dl-2019/judged".

    Raises:
        UsageError: For an unknown name, or a dataset without queries.
        SourceError: If the download or reading fails, or its folder is not writable.
        MissingExtraError: Without the extra `datasets`.
    """
    return _load(
        name,
        "queries",
        lambda dataset: [Query(one.query_id, one.default_text()) for one in dataset.queries_iter()],
    )


def load_qrels(name: str) -> Qrels:
    """Load the judgments of a dataset; the first time, download them. See `load_queries`.

    Raises:
        SourceError: Also if a passage has two grades for a query.
    """
    judgments = _load(
        name,
        "qrels",
        lambda dataset: [
            Judgment(name, one.query_id, one.doc_id, int(one.relevance))
            for one in dataset.qrels_iter()
        ],
    )
    return collect_qrels(judgments)


def _load(name: str, part: str, read: Callable[[Any], _T]) -> _T:
    library = _ir_datasets()
    try:
        dataset = library.load(name)
    except KeyError as exc:
        near = get_close_matches(name, list(library.registry), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see https://ir-datasets.com"
        raise UsageError(f"ir_datasets has no dataset {name!r}: {hint}") from exc
    if not dataset.has(part):
        parts = ", ".join(one for one in ("docs", "queries", "qrels") if dataset.has(one))
        raise UsageError(f"dataset {name!r} has no {part}, only {parts or 'other parts'}")
    try:
        return read(dataset)
    except _FAILURES as exc:
        raise SourceError(
            f"cannot load the {part} of dataset {name!r}: {str(exc)[:300]}; check the network, or "
            "download the files and pass their names"
        ) from exc


def _ir_datasets() -> Any:
    try:
        import ir_datasets
    except ModuleNotFoundError as exc:
        raise MissingExtraError("reading datasets by name", "datasets") from exc
    except OSError as exc:
        raise SourceError(
            f"ir_datasets cannot create its folder: {exc}; set IR_DATASETS_HOME to a writable one"
        ) from exc
    return ir_datasets
