"""Parts of a judging: some queries with all their pairs, each written to a file of its own."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.train.judge_scorer import Pairs, Scorer
from msmarco_qdrant.train.out_folder import digest_of
from msmarco_qdrant.train.records import MinedQuery
from msmarco_qdrant.train.score_files import read_scores, write_scores
from msmarco_qdrant.train.texts import PassageTexts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAIRS_PER_PART = 16_384
"""A killed run loses the scores of fewer pairs than this, and those that are read ahead."""

_FOLDER = "parts"


@dataclass(frozen=True, slots=True)
class Part:
    """Neighboring queries of the mined file.

    Attributes:
        number: Place of the part, from 0.
        pids: The pids to judge of each query: its positives, then its candidates.
    """

    number: int
    pids: Mapping[str, tuple[str, ...]]

    @property
    def digest(self) -> str:
        """A digest of its qids and pids."""
        return digest_of(word for qid, pids in self.pids.items() for word in (qid, "", *pids))

    @property
    def pairs(self) -> int:
        """Number of pairs to judge."""
        return sum(map(len, self.pids.values()))

    def passages(self) -> Iterator[str]:
        """Yield the pid of each pair."""
        for pids in self.pids.values():
            yield from pids

    def pairs_of(self, queries: Mapping[str, str], texts: Mapping[str, str]) -> PartPairs:
        """Return the pairs whose passages have a text.

        Args:
            queries: The text of each query, by qid.
            texts: The texts of the passages, by pid.
        """
        keys = [(qid, pid) for qid, pids in self.pids.items() for pid in pids if pid in texts]
        return PartPairs(keys, [(queries[qid], texts[pid]) for qid, pid in keys])


@dataclass(frozen=True, slots=True)
class PartPairs:
    """Pairs of a part that can be scored.

    Attributes:
        keys: The qid and the pid of each.
        texts: Their texts.
    """

    keys: Sequence[tuple[str, str]]
    texts: Pairs

    def by_query(self, part: Part, scores: NDArray[np.float32]) -> dict[str, dict[str, float]]:
        """Return the scores, float32 `(len(keys),)`, of each query of the part by pid."""
        found: dict[str, dict[str, float]] = {qid: {} for qid in part.pids}
        for (qid, pid), score in zip(self.keys, scores.tolist(), strict=True):
            found[qid][pid] = score
        return found


class PartFiles:
    """The files of the parts, in a folder of their own.

    Args:
        folder: The output folder of the judging.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _FOLDER

    def has(self, part: Part) -> bool:
        """True if an earlier run has completed a part."""
        return self._path(part).is_file()

    def write(self, part: Part, scores: Iterable[tuple[str, Mapping[str, float]]]) -> None:
        """Write a complete part."""
        self._folder.mkdir(exist_ok=True)
        write_scores(self._path(part), scores)

    def read(self, parts: Iterable[Part]) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield the scores of complete parts, in their order."""
        for part in parts:
            yield from read_scores(self._path(part))

    def remove(self) -> None:
        """Remove all parts."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, part: Part) -> Path:
        return self._folder / f"{part.number:08}-{part.digest}.parquet"


def split_parts(mined: Iterable[MinedQuery], pairs: int = PAIRS_PER_PART) -> Iterator[Part]:
    """Split mined queries into parts of about equal size; a part has whole queries."""
    number, held, pids = 0, 0, dict[str, tuple[str, ...]]()
    for query in mined:
        candidates = (pid for found in query.negatives.values() for pid in found)
        pids[query.qid] = tuple(dict.fromkeys([*query.positives, *candidates]))
        held += len(pids[query.qid])
        if held >= pairs:
            yield Part(number, pids)
            number, held, pids = number + 1, 0, {}
    if pids:
        yield Part(number, pids)


def judge_parts(
    parts: Iterable[Part],
    files: PartFiles,
    scorer: Scorer,
    queries: Mapping[str, str],
    texts: PassageTexts,
    on_pairs: Callable[[int], None],
) -> None:
    """Judge the parts that are missing. Texts are read ahead while the judge scores.

    Args:
        parts: All parts.
        files: Their files.
        scorer: The judge.
        queries: The text of each query, by qid.
        texts: The texts of the passages.
        on_pairs: Called with the number of pairs of each completed part.
    """
    waiting: deque[tuple[Part, PartPairs]] = deque()

    def read() -> Iterator[tuple[Part, PartPairs]]:
        for part in parts:
            if files.has(part):
                on_pairs(part.pairs)
                continue
            yield part, part.pairs_of(queries, texts.get(part.passages()))

    def pairs(items: Iterable[tuple[Part, PartPairs]]) -> Iterator[Pairs]:
        for part, of_part in items:
            waiting.append((part, of_part))
            yield of_part.texts

    with Pipeline() as pipeline:
        scored = scorer.score_batches(pairs(pipeline.run(read(), prefetch=1, name="texts")))
        for scores in scored:
            part, of_part = waiting.popleft()
            files.write(part, of_part.by_query(part, scores).items())
            on_pairs(part.pairs)


def require_texts(parts: Iterable[Part], queries: Mapping[str, str]) -> Iterator[Part]:
    """Yield parts whose queries all have a text.

    Raises:
        UsageError: If the text of a mined query is missing.
    """
    for part in parts:
        if (missing := next((qid for qid in part.pids if qid not in queries), None)) is not None:
            raise UsageError(
                f"queries must hold the text of each mined query, got none of {missing!r}: pass "
                "the queries with which the candidates were mined"
            )
        yield part
