"""The adapter of `ir_datasets`: queries and judgments of public collections by their names.

The library downloads what it needs on first use and keeps it in `~/.ir_datasets`, or where the
environment variable `IR_DATASETS_HOME` points to; it makes that folder when it is imported. The
tests register a dataset of local files: the real downloads were not run here.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import MissingExtraError, SourceError, UsageError
from msmarco_qdrant.evaluation.qrels import Judgment, collect_qrels
from msmarco_qdrant.evaluation.records import Qrels

# A download that fails, a file of another digest or form, a full disk, data to be put there by hand
_FAILURES = (OSError, RuntimeError, ValueError, EOFError, KeyError)


def load_queries(name: str) -> list[Query]:
    """The queries of a dataset, downloaded if need be.

    Args:
        name: As `ir_datasets` calls it: "msmarco-passage/trec-dl-2019/judged".

    Raises:
        UsageError: For a name that is unknown, or a dataset without queries.
        SourceError: If the download or its reading fails, or its folder cannot be written.
        MissingExtraError: Without the extra `datasets`.
    """
    dataset = _dataset(name, "queries")
    try:
        return [Query(query.query_id, query.default_text()) for query in dataset.queries_iter()]
    except _FAILURES as exc:
        raise _failed(name, "queries", exc) from exc


def load_qrels(name: str) -> Qrels:
    """The judgments of a dataset, downloaded if need be.

    Args:
        name: See `load_queries`.

    Raises:
        UsageError: For a name that is unknown, or a dataset without judgments.
        SourceError: If the download or its reading fails, or a passage has two grades.
        MissingExtraError: Without the extra `datasets`.
    """
    dataset = _dataset(name, "qrels")
    try:
        judgments = [
            Judgment(name, qrel.query_id, qrel.doc_id, int(qrel.relevance))
            for qrel in dataset.qrels_iter()
        ]
    except _FAILURES as exc:
        raise _failed(name, "judgments", exc) from exc
    return collect_qrels(judgments)


def _dataset(name: str, kind: str) -> Any:
    library = _ir_datasets()
    try:
        dataset = library.load(name)
    except KeyError as exc:
        near = get_close_matches(name, list(library.registry), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see https://ir-datasets.com"
        raise UsageError(f"ir_datasets has no dataset {name!r}: {hint}") from exc
    if not dataset.has(kind):
        has = ", ".join(one for one in ("docs", "queries", "qrels") if dataset.has(one))
        raise UsageError(f"dataset {name!r} has no {kind}, only {has or 'other parts'}")
    return dataset


def _failed(name: str, what: str, exc: Exception) -> SourceError:
    return SourceError(
        f"the {what} of dataset {name!r} cannot be had: {str(exc)[:300]}; check the network, or "
        "download them and name the files"
    )


def _ir_datasets() -> Any:
    try:
        import ir_datasets
    except ModuleNotFoundError as exc:
        raise MissingExtraError("reading datasets by name", "datasets") from exc
    except OSError as exc:
        raise SourceError(
            f"ir_datasets cannot make its folder: {exc}; set IR_DATASETS_HOME to one that can be "
            "written"
        ) from exc
    return ir_datasets
