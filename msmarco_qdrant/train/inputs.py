"""Inputs of a training: queries with their passages, dev queries, device and libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant import __version__
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import MissingExtraError, UsageError
from msmarco_qdrant.train.digests import digest_grades, digest_queries
from msmarco_qdrant.train.examples import CollectedQueries, collect_queries, to_mined
from msmarco_qdrant.train.negatives_file import read_negatives
from msmarco_qdrant.train.records import MinedQuery, Positives

if TYPE_CHECKING:
    from msmarco_qdrant.evaluation.records import Qrels
    from msmarco_qdrant.search.client import SearchClient

TrainingSource: TypeAlias = "str | PathLike[str] | Iterable[MinedQuery] | Positives"
"""A file of mined negatives, its queries, or the positives of each query."""

_LIBRARIES = ("sentence-transformers", "transformers", "torch")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The data of a training.

    Attributes:
        client: A client of the collection with the passages.
        tenant: The tenant whose passages are used; None for all.
        collected: The training queries with the pids of their passages.
        dev_queries: The queries to measure on; empty for none.
        dev_qrels: Their judgments.
    """

    client: SearchClient
    tenant: str | None
    collected: CollectedQueries
    dev_queries: Collection[Query]
    dev_qrels: Qrels

    def describe(self) -> dict[str, str | None]:
        """Return names and digests of the data, for the folder."""
        return {
            "tenant": self.tenant,
            "collection": self.client.collection,
            "queries and passages": self.collected.digest,
            "dev queries": digest_queries(self.dev_queries),
            "dev qrels": digest_grades(self.dev_qrels),
        }


def read_examples(queries: Iterable[Query], examples: TrainingSource) -> CollectedQueries:
    """Read the training queries with the pids of their passages.

    Args:
        queries: The training queries.
        examples: A file or folder of mined negatives, `MinedQuery` values, or the positives of
            each query.

    Raises:
        UsageError: If no query has a text, or a qid is repeated.
        SourceError: If the file cannot be read.
    """
    texts = {query.qid: query.text for query in queries}
    if isinstance(examples, str | PathLike):
        examples = read_negatives(examples)
    return collect_queries(to_mined(examples), texts)


def library_versions() -> dict[str, str]:
    """Return the version of each library that takes part in a training."""
    return {"msmarco-qdrant": __version__, **{name: version(name) for name in _LIBRARIES}}


def check_dev(
    queries: Collection[Query] | None, qrels: Qrels | None, eval_steps: int | None
) -> None:
    """Refuse dev queries without judgments, and the other way round.

    Raises:
        UsageError: If one of them is missing, or `eval_steps` is given without them.
    """
    if (queries is None) != (qrels is None):
        missing = "dev_qrels" if qrels is None else "dev_queries"
        raise UsageError(f"dev_queries and dev_qrels belong together, got no {missing}")
    if queries is None and eval_steps is not None:
        raise UsageError("eval_steps needs dev queries: pass dev_queries and dev_qrels")


def one_device(device: str | None) -> str | None:
    """Return the device to train on; None for the best one.

    Raises:
        UsageError: For several devices, or one that torch does not have.
    """
    from msmarco_qdrant.encoding.options import resolve_devices

    devices = resolve_devices(device)
    if len(devices) > 1:
        raise UsageError(f"device must be one device for training, got {device!r}")
    return devices[0]


def require_train_extra(feature: str) -> None:
    """Require the libraries of the extra `train`.

    Raises:
        MissingExtraError: If one is not installed.
    """
    for name in ("accelerate", "datasets", "ir_measures", "scipy"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(feature, "train")
