"""Digests of a step's data, for the settings of its folder."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.evaluation.records import Qrels
from msmarco_qdrant.sources.files import file_size
from msmarco_qdrant.train.negatives_file import NEGATIVES_FILE
from msmarco_qdrant.train.out_folder import digest_files, digest_of
from msmarco_qdrant.train.records import MinedQuery

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query


def digest_queries(queries: Iterable[Query]) -> str:
    """Return a digest of queries, which does not depend on their order."""
    return digest_of(sorted(f"{one.qid}\t{one.text}" for one in queries))


def digest_grades(qrels: Qrels) -> str:
    """Return a digest of judgments, which does not depend on their order."""
    return digest_of(
        sorted(f"{qid} {pid} {grade}" for qid, of in qrels.items() for pid, grade in of.items())
    )


def digest_negatives(negatives: str | PathLike[str] | Iterable[MinedQuery]) -> str:
    """Return a digest of mined queries, or of the bytes of their file, which a folder may have.

    Raises:
        SourceError: If the file cannot be read.
    """
    if not isinstance(negatives, str | PathLike):
        rows = ((one.qid, one.positives, sorted(one.negatives.items())) for one in negatives)
        return digest_of(map(repr, rows))
    path = Path(negatives)
    if path.is_dir():
        path = path / NEGATIVES_FILE
    file_size(str(path))  # refuses a missing file with a clear message
    return digest_files(path)
