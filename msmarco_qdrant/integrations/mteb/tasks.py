"""Retrieval tasks: those of MTEB by name, and those made of local files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any, Final

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.cache import ResultCache

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.evaluation.qrels import read_qrels
from msmarco_qdrant.sources.corpus import Corpus, read_queries

MAIN_SCORE: Final = "ndcg_at_10"
_log = logging.getLogger(__name__)


def local_task(
    corpus: str | PathLike[str] | Sequence[str | PathLike[str]],
    queries: str | PathLike[str],
    qrels: str | PathLike[str],
    *,
    name: str = "Local",
) -> AbsTaskRetrieval:
    """Make a retrieval task of files, such as those of a data set in BEIR's form.

    Args:
        corpus: One or several files of passages, in a format that `ingest_passages` reads. Of rows
            with the same pid the first one counts; rows that are not passages are left out, with a
            warning.
        queries: The queries; those without a judgment are left out.
        qrels: The judgments, in the form of TREC or BEIR.
        name: Name of the task, which its collection has, too.

    Returns:
        A task for `mteb.evaluate`, with one split, "test".

    Raises:
        SourceError: If a file cannot be read, no query has a judgment, or no row is a passage.
        UsageError: If the name is not a non-empty string.
    """
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"name must be a non-empty string, got {name!r}")
    judged = {query: dict(grades) for query, grades in read_qrels(qrels).items()}
    asked = {one.qid: one.text for one in read_queries(queries) if one.qid in judged}
    if not asked:
        raise SourceError(
            f"queries must have judgments in {qrels}, got none for a query of {queries}: pass the "
            "judgments of these queries"
        )
    passages = _read_passages(corpus)
    grades = {query: judged[query] for query in asked}
    data = {
        "corpus": Dataset.from_dict({"id": [*passages], "text": [*passages.values()]}),
        "queries": Dataset.from_dict({"id": [*asked], "text": [*asked.values()]}),
        "relevant_docs": grades,
        "top_ranked": None,
    }
    return _task_of(name, _digest(passages.items(), asked.items(), grades.items()), data)


def named_tasks(names: Sequence[str]) -> Sequence[Any]:
    """Return tasks of MTEB by their names, such as "NFCorpus".

    Raises:
        UsageError: For an unknown name, or a task that searches no corpus.
    """
    tasks = []
    for name in names:
        try:
            task = mteb.get_task(name)
        except KeyError as exc:
            raise UsageError(f"task must be one of MTEB, got {name!r}: {exc.args[0]}") from exc
        if not isinstance(task, AbsTaskRetrieval):
            raise UsageError(
                f"task must be of retrieval or reranking, got {name!r}, which is of "
                f"{task.metadata.type}"
            )
        tasks.append(task)
    return tasks


def run_tasks(
    model: Any, tasks: Sequence[Any], results: Path | None = None
) -> Sequence[Mapping[str, Any]]:
    """Run tasks and return their scores.

    Args:
        model: The model.
        tasks: The tasks.
        results: Folder of results in MTEB's form; those found there are not computed again.

    Returns:
        For each task, subset and split: "task", "subset", "split", "main_score", and "scores" with
        every score by its name.

    Raises:
        SourceError: If the data cannot be downloaded, or a file cannot be read or written.
        UsageError: If the folder has a result of a task of this name with other data.
    """
    cache = None if results is None else ResultCache(results)
    if cache is not None:
        for task in tasks:
            _check_data(cache, task, model)
    try:
        done = mteb.evaluate(model, tasks, cache=cache, co2_tracker=False, show_progress_bar=False)
    except OSError as exc:  # such as that of a download
        raise SourceError(
            f"the data of a task or its results cannot be read or written: {exc}"
        ) from exc
    return [*_scores_of(done)]


def _scores_of(done: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the scores of each task, subset and split."""
    yield from (
        {
            "task": one.task_name,
            "subset": scores["hf_subset"],
            "split": split,
            "main_score": scores["main_score"],
            "scores": {
                name: value
                for name, value in scores.items()
                if isinstance(value, float) and name != "main_score"
            },
        }
        for one in done.task_results
        for split, subsets in one.scores.items()
        for scores in subsets
    )


def _check_data(cache: ResultCache, task: Any, model: Any) -> None:
    """Refuse the stored result of other data, which MTEB would return as this task's."""
    name, revision = task.metadata.name, task.metadata.revision
    stored = cache.load_task_result(name, model.mteb_model_meta)
    if stored is not None and stored.dataset_revision != revision:
        raise UsageError(
            f"results must be of the same data, got a result of another {name!r} (revision "
            f"{stored.dataset_revision}, not {revision}): choose another folder, or another name "
            "for a task of files"
        )


def _digest(*parts: Iterable[object]) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        for row in part:
            digest.update(repr(row).encode("utf-8", "backslashreplace"))
        digest.update(b"\n")
    return digest.hexdigest()


def _read_passages(
    corpus: str | PathLike[str] | Sequence[str | PathLike[str]],
) -> Mapping[str, str]:
    passages: dict[str, str] = {}
    rejects = []
    for row in Corpus(corpus):
        if isinstance(row, Reject):
            rejects.append(row)
        else:
            passages.setdefault(row.pid, row.text)
    if rejects:
        first = rejects[0]
        _log.warning(
            "%s rows of the corpus are left out; the first: %s:%s: %s",
            *(f"{len(rejects):,}", first.source, first.line, first.reason),
        )
    if not passages:
        raise SourceError(f"the corpus must have passages, got none in {corpus}")
    return passages


def _task_of(name: str, revision: str, data: Mapping[str, Any]) -> AbsTaskRetrieval:
    """Return a task of loaded data; MTEB reads the name from the class."""

    class LocalTask(AbsTaskRetrieval):
        """A task of local files."""

        metadata = TaskMetadata(
            name=name,
            dataset={"path": name, "revision": revision},
            description="A retrieval task of local files.",
            type="Retrieval",
            modalities=["text"],
            category="t2t",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score=MAIN_SCORE,
        )

        def load_data(self, **_options: Any) -> None:
            """Offer the data."""
            self.dataset = {"default": {"test": dict(data)}}
            self.data_loaded = True

    return LocalTask()
