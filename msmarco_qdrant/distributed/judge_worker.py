"""The worker of a distributed judging: it scores one part after the other."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.distributed.clients import ClientSettings
from msmarco_qdrant.distributed.machine import named_machine
from msmarco_qdrant.errors import ModelMismatchError
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.train.judge_check import DevRankings, rank_batch
from msmarco_qdrant.train.judge_parts import Part
from msmarco_qdrant.train.judge_scorer import JudgeInfo, Scorer, load_judge, to_scorer
from msmarco_qdrant.train.texts import read_texts

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.encoding import Encoder, Reranker

JudgeMaker: TypeAlias = "str | PathLike[str] | Callable[[], Reranker | Encoder]"
"""The location of a judge, or a function that returns one."""


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Settings of every worker of one judging; they are sent to other machines.

    Attributes:
        judge: The judge.
        clients: How the collection is opened; its encoder's options are the judge's, too.
        mode: Mode of the search that the judge must improve on.
        depth: Candidates per dev query.
        tenant: Only this tenant's passages.
    """

    judge: JudgeMaker
    clients: ClientSettings
    mode: SearchMode
    depth: int
    tenant: str | None


@dataclass(frozen=True, slots=True)
class DevWork:
    """Some dev queries, by which the judge is judged."""

    queries: Sequence[Query]


@dataclass(frozen=True, slots=True)
class ScoreWork:
    """A part to score.

    Attributes:
        part: The part.
        queries: The text of each of its queries, by qid.
    """

    part: Part
    queries: Mapping[str, str]


class JudgeWorker:
    """Loads the judge once, then scores parts, also several at once in threads.

    Args:
        settings: The same for all workers.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        self._scorer: Scorer | None = None
        self._clients: dict[bool, SearchClient] = {}  # by bm25_only
        self._opening = threading.Lock()

    def load(self) -> JudgeInfo:
        """Load the judge, and return its properties.

        Raises:
            ModelError: If it cannot be loaded.
            UsageError: If it is neither a cross-encoder nor a bi-encoder.
        """
        judge, options = self._settings.judge, self._settings.clients.models.options
        with named_machine():
            self._scorer = to_scorer(judge() if callable(judge) else load_judge(judge, options))
        return JudgeInfo.of(self._scorer)

    def begin(self, job: JudgeInfo) -> None:
        """Prepare to score; load the judge unless that is done.

        Raises:
            ModelError: If it cannot be loaded.
            ModelMismatchError: If it is another one than that of the first worker.
        """
        if self._scorer is None and self.load() != job:
            raise ModelMismatchError(
                f"{platform.node()} has another {job.model} than the machine that loaded it first, "
                "or computes it in another precision: copy the same files to every machine, or "
                "name a directory that all of them share, and pass the precision"
            )

    def run_split(
        self, work: DevWork | ScoreWork
    ) -> Iterator[DevRankings | dict[str, dict[str, float]]]:
        """Yield the rankings of dev queries, or the scores of a part by qid and pid.

        Raises:
            MsmarcoQdrantError: If it failed; the same work can be done again.
        """
        scorer, settings = self._scorer, self._settings
        if scorer is None:
            raise RuntimeError("begin was not called")
        if isinstance(work, DevWork):
            yield rank_batch(
                scorer,
                self._client(bm25_only=settings.mode == "bm25"),
                work.queries,
                mode=settings.mode,
                depth=settings.depth,
                tenant=settings.tenant,
            )
            return
        pids = dict.fromkeys(work.part.passages())
        texts = read_texts(self._client(bm25_only=True), pids, tenant=settings.tenant)
        pairs = work.part.pairs_of(work.queries, texts)
        (scores,) = scorer.score_batches([pairs.texts])
        yield pairs.by_query(work.part, scores)

    def done(self) -> int:
        """Return 0: the scores of unfinished parts are lost with this process."""
        return 0

    def _client(self, *, bm25_only: bool) -> SearchClient:
        """Open a client when it is first needed: only the check of the judge needs a model."""
        with self._opening:
            if bm25_only not in self._clients:
                settings = self._settings.clients
                opened = settings.open(settings.collection, bm25_only=bm25_only)
                self._clients[bm25_only] = opened
            return self._clients[bm25_only]
