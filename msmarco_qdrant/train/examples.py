"""Training examples: queries with the numbers of their positives and negatives.

Passages have numbers: those of equal text have the same one. So a text that answers a query is
never a negative of it under another pid, and no text is twice in a batch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.runtime.atomic_file import atomic_write
from msmarco_qdrant.train.out_folder import digest_of
from msmarco_qdrant.train.ragged import Ragged
from msmarco_qdrant.train.records import MinedQuery, Positives
from msmarco_qdrant.train.text_file import TextFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_READ_AT_ONCE = 1000
_MISSING = -1

GetTexts = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class ExampleCounts:
    """Counts of the examples of a training.

    Attributes:
        queries: Queries with a positive in the collection.
        positives: Pairs of query and positive.
        negatives: Pairs of query and negative.
        passages: Different texts among the passages.
        unknown_queries: Queries of the negatives or positives without a text; left out.
        missing_passages: Pids that the collection lacks; left out.
        without_positive: Queries left out because the collection has none of their positives.
    """

    queries: int
    positives: int
    negatives: int
    passages: int
    unknown_queries: int
    missing_passages: int
    without_positive: int


@dataclass(frozen=True, slots=True, eq=False)
class ExampleSet:
    """Queries with the numbers of their passages.

    Attributes:
        qids: The id of each query.
        queries: The text of each query.
        positives: The numbers of each query's positives.
        negatives: The numbers of each query's candidates for negatives, best first.
        positive_pids: The place in `pids` of each value of `positives`; `negative_pids` likewise.
        passages: The texts by number.
        pids: Every pid that was named.
        counts: What was left out.
    """

    qids: Sequence[str]
    queries: Sequence[str]
    positives: Ragged
    negatives: Ragged
    positive_pids: NDArray[np.int32]
    negative_pids: NDArray[np.int32]
    passages: TextFile
    pids: Sequence[str]
    counts: ExampleCounts


def to_mined(source: Iterable[MinedQuery] | Positives) -> Iterator[MinedQuery]:
    """Yield queries with positives, and with negatives if they have some."""
    if isinstance(source, Mapping):
        for qid, pids in source.items():
            yield MinedQuery(qid, tuple(pids), {})
    else:
        yield from source


def candidates_of(mined: MinedQuery) -> list[str]:
    """Return the negatives of all systems, each once, in the order of their ranks."""
    lists = [*mined.negatives.values()]
    longest = max(map(len, lists), default=0)
    ranked = (pids[rank] for rank in range(longest) for pids in lists if rank < len(pids))
    return [*dict.fromkeys(ranked)]


@dataclass(frozen=True, slots=True, eq=False)
class CollectedQueries:
    """Training queries with the places of their pids.

    Attributes:
        qids: The id of each query with a text.
        texts: The text of each.
        positives: The places in `pids` of each query's positives; `negatives` likewise.
        pids: Every pid that was named.
        unknown: Number of queries without a text.
    """

    qids: Sequence[str]
    texts: Sequence[str]
    positives: Ragged
    negatives: Ragged
    pids: Sequence[str]
    unknown: int

    @property
    def digest(self) -> str:
        """A digest of all of it."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(digest_of([*self.qids, *self.texts, *self.pids]).encode())
        for ragged in (self.positives, self.negatives):
            digest.update(ragged.values.tobytes())
            digest.update(ragged.offsets.tobytes())
        return digest.hexdigest()


def build_examples(
    collected: CollectedQueries,
    get_texts: GetTexts,
    path: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> ExampleSet:
    """Number the passages of training queries, and write their texts to a file.

    Args:
        collected: The queries with their pids.
        get_texts: Returns the texts of some pids, without those that the collection lacks.
        path: The file of texts to write; one that is complete is read instead.
        on_progress: Called with the passages read and their number.

    Raises:
        UsageError: If the collection has no positive of any query.
    """
    numbers = _stored_numbers(path)
    if numbers is None or len(numbers) != len(collected.pids):
        numbers = _read_texts(collected.pids, get_texts, path, on_progress)
    return _to_set(collected, numbers, TextFile(path))


def collect_queries(mined: Iterable[MinedQuery], queries: Mapping[str, str]) -> CollectedQueries:
    """Read training queries once, and give each pid a place.

    Args:
        mined: The queries with their pids.
        queries: The text of each query, by qid.

    Raises:
        UsageError: If no query has a text, or a qid is repeated.
    """
    places: dict[str, int] = {}
    seen: set[str] = set()
    qids: list[str] = []
    unknown: list[str] = []
    negatives: list[Sequence[int]] = []

    def rows() -> Iterator[Sequence[int]]:
        for entry in mined:
            if entry.qid in seen:
                raise UsageError(
                    f"each training query must occur once, got the qid {entry.qid!r} twice: "
                    "merge its negatives"
                )
            seen.add(entry.qid)
            if entry.qid not in queries:
                unknown.append(entry.qid)
                continue
            qids.append(entry.qid)
            # int32 arrays rather than lists: 100 candidates of a query are 400 bytes
            negatives.append(_places(candidates_of(entry), places))
            yield _places(entry.positives, places)

    positives = Ragged.of(rows())
    if not qids:
        _refuse_unknown(unknown, queries)
    if unknown:
        _log.warning(
            "%s of %s training queries have no text and are left out, such as %r: pass the "
            "queries of these qids",
            *(f"{len(unknown):,}", f"{len(seen):,}", unknown[0]),
        )
    texts = [queries[qid] for qid in qids]
    return CollectedQueries(qids, texts, positives, Ragged.of(negatives), [*places], len(unknown))


def _places(pids: Iterable[str], places: dict[str, int]) -> Sequence[int]:
    from array import array

    return array("i", (places.setdefault(pid, len(places)) for pid in pids))


def _refuse_unknown(unknown: Sequence[str], queries: Mapping[str, str]) -> None:
    if not unknown:
        raise UsageError("training needs queries with positives, got none")
    raise UsageError(
        f"none of the {len(unknown):,} training queries has a text: their qids are such as "
        f"{unknown[0]!r}, those of the queries such as {next(iter(queries), None)!r}; pass the "
        "queries of these qids"
    )


def _numbers_path(path: Path) -> Path:
    return path.with_name(path.name + ".numbers.npy")


def _stored_numbers(path: Path) -> NDArray[np.int32] | None:
    """Return the numbers that an earlier run wrote, after the texts."""
    import numpy as np

    stored = _numbers_path(path)
    return np.load(stored) if stored.is_file() else None


def _read_texts(
    pids: Sequence[str],
    get_texts: GetTexts,
    path: Path,
    on_progress: Callable[[int, int], None] | None,
) -> NDArray[np.int32]:
    """Write the texts; return the number of each pid, -1 for a missing one."""
    import numpy as np

    numbers = np.full(len(pids), _MISSING, np.int32)
    known: dict[bytes, int] = {}

    def new_texts() -> Iterator[str]:
        done = 0
        for batch in in_batches(pids, _READ_AT_ONCE):
            found = get_texts(batch)
            for place, pid in enumerate(batch, start=done):
                if (text := found.get(pid)) is None:
                    continue
                digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
                is_new = digest.digest() not in known
                numbers[place] = known.setdefault(digest.digest(), len(known))
                if is_new:
                    yield text
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(pids))

    TextFile.write(path, new_texts())
    with atomic_write(_numbers_path(path)) as file:
        np.save(file, numbers)
    return numbers


def _to_set(
    collected: CollectedQueries, numbers: NDArray[np.int32], passages: TextFile
) -> ExampleSet:
    positives = [_known(row, numbers) for row in _rows(collected.positives)]
    kept = [place for place, row in enumerate(positives) if row]
    if not kept:
        raise UsageError(
            f"the collection has none of the positives of {len(positives):,} training queries, "
            f"such as {collected.pids[0]!r}: were they taken from another collection?"
            if collected.pids
            else f"none of the {len(positives):,} training queries has a positive"
        )
    known, positive_pids = _collect(positives[row] for row in kept)
    negatives, negative_pids = _collect(
        {
            number: place
            for number, place in _known(collected.negatives[row], numbers).items()
            if number not in positives[row]
        }
        for row in kept
    )
    return ExampleSet(
        qids=[collected.qids[row] for row in kept],
        queries=[collected.texts[row] for row in kept],
        positives=known,
        negatives=negatives,
        positive_pids=positive_pids,
        negative_pids=negative_pids,
        passages=passages,
        pids=collected.pids,
        counts=ExampleCounts(
            queries=len(kept),
            positives=len(known.values),
            negatives=len(negatives.values),
            passages=len(passages),
            unknown_queries=collected.unknown,
            missing_passages=int((numbers == _MISSING).sum()),
            without_positive=len(positives) - len(kept),
        ),
    )


def _collect(rows: Iterable[Mapping[int, int]]) -> tuple[Ragged, NDArray[np.int32]]:
    """Return the numbers of each row, and the place of each number, one row in memory at a time."""
    from array import array

    import numpy as np

    places = array("i")

    def numbers() -> Iterator[Mapping[int, int]]:
        for row in rows:
            places.extend(row.values())
            yield row

    ragged = Ragged.of(numbers())
    return ragged, np.array(places, np.int32)


def _rows(ragged: Ragged) -> Iterator[NDArray[np.int32]]:
    return (ragged[row] for row in range(len(ragged)))


def _known(places: NDArray[np.int32], numbers: NDArray[np.int32]) -> dict[int, int]:
    """Return the place of each number, in order, without missing ones."""
    found: dict[int, int] = {}
    for place, number in zip(places.tolist(), numbers[places].tolist(), strict=True):
        if number != _MISSING:
            found.setdefault(number, place)
    return found
