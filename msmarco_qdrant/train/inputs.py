"""Inputs of a training: queries with their passages, dev queries, device and libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable
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


def describe_data(
    client: SearchClient,
    collected: CollectedQueries,
    dev_queries: Collection[Query],
    dev_qrels: Qrels,
) -> dict[str, str]:
    """Return names and digests of the data of a training, for its folder."""
    return {
        "collection": client.collection,
        "queries and passages": collected.digest,
        "dev queries": digest_queries(dev_queries),
        "dev qrels": digest_grades(dev_qrels),
    }


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
