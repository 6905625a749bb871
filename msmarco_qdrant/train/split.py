"""Split judged queries into those to train on, to choose by, and to measure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.scoring import check_qids, select_judged

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.evaluation.records import Qrels

LEAST_QUERIES = 10  # of a part; below that no paired test can show anything
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
_LARGEST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Split:
    """Judged queries in three parts without a common query or text.

    Attributes:
        train: The queries to train on.
        validation: Those by which judges, checkpoints and rounds are chosen.
        test: Those that decide whether the new model is better; used once, at the end.
    """

    train: tuple[Query, ...]
    validation: tuple[Query, ...]
    test: tuple[Query, ...]


@suggest_keywords
def split_queries(
    queries: Collection[Query],
    qrels: Qrels,
    *,
    test: Collection[Query] | None = None,
    test_share: float = TEST_SHARE,
    validation_share: float = VALIDATION_SHARE,
    seed: int = 0,
) -> Split:
    """Split the queries that have a relevant passage.

    A digest of the text and the seed decides, so the split does not depend on the order of the
    queries, and equal texts are in the same part. Case and white space do not count.

    Args:
        queries: The queries.
        qrels: Their judgments; queries without a grade of 1 or more are left out.
        test: The test queries, if they are given; training queries with the same qid or text are
            left out.
        test_share: The share of the queries to test, if they are not given.
        validation_share: The share of the queries to validate.
        seed: Another seed gives another split.

    Raises:
        UsageError: For invalid shares, or fewer than 10 queries in a part.
    """
    check_shares(test_share, validation_share)
    check_qids(queries)
    judged = select_judged({query.qid for query in queries}, qrels)
    usable = [query for query in queries if max(judged.get(query.qid, {}).values(), default=0) > 0]
    if test is not None:
        usable = _without(usable, test)
    texts = sorted({_normalized(query.text) for query in usable}, key=lambda one: _place(one, seed))
    tested = 0 if test is not None else round(test_share * len(texts))
    held_out = {*texts[:tested]}
    chosen_by = {*texts[tested : tested + round(validation_share * len(texts))]}
    parts: dict[str, list[Query]] = {"train": [], "validation": [], "test": []}
    for query in usable:
        text = _normalized(query.text)
        name = "test" if text in held_out else "validation" if text in chosen_by else "train"
        parts[name].append(query)
    found = Split(
        tuple(parts["train"]),
        tuple(parts["validation"]),
        tuple(parts["test"] if test is None else test),
    )
    _require(found, len(usable))
    return found


def check_shares(test_share: float, validation_share: float) -> None:
    """Refuse shares that leave too little to train on.

    Raises:
        UsageError: If one is not above 0 and at most 0.5.
    """
    for name, share in (("test_share", test_share), ("validation_share", validation_share)):
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not is_number or not 0 < share <= _LARGEST_SHARE:
            raise UsageError(f"{name} must be above 0 and at most {_LARGEST_SHARE}, got {share!r}")


def _without(queries: Sequence[Query], test: Iterable[Query]) -> list[Query]:
    """Leave out queries that are also test queries, by qid or by text."""
    qids, texts = set(), set()
    for query in test:
        qids.add(query.qid)
        texts.add(_normalized(query.text))
    return [one for one in queries if one.qid not in qids and _normalized(one.text) not in texts]


def _place(text: str, seed: int) -> bytes:
    """Return bytes to sort by that only the text and the seed decide."""
    data = f"{seed}\n{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split())


def _require(found: Split, usable: int) -> None:
    for name, part in (
        ("train", found.train),
        ("validation", found.validation),
        ("test", found.test),
    ):
        if len(part) < LEAST_QUERIES:
            raise UsageError(
                f"training needs {LEAST_QUERIES} queries with a relevant passage or more in each "
                f"part, got {len(part)} for {name} of {usable:,}: pass more judged queries, or "
                "train on a larger public set"
            )
