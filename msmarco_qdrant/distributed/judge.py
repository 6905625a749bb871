"""Judging of mined candidates by the workers of a Ray cluster.

``load the judge → judge it by dev queries → score parts → write them``. The parts are those of a
judging by one process, which this process writes, so a later run, on Ray or not, resumes with the
missing ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.distributed.clients import ClientSettings
from msmarco_qdrant.distributed.judge_worker import (
    DevWork,
    JudgeMaker,
    JudgeSettings,
    JudgeWorker,
    ScoreWork,
)
from msmarco_qdrant.distributed.parts import WorkFiles, run_parts
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.tasks import TaskPolicy, outage_policy
from msmarco_qdrant.distributed.values import (
    SPLITS_AT_ONCE_ON_GPU,
    ClusterOptions,
    absolute_model,
    check_model,
    check_server_url,
    for_workers,
)
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import EncoderChoices
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection
from msmarco_qdrant.train.judge import JudgeInputs, JudgeReport, Negatives, run_judging
from msmarco_qdrant.train.judge_check import (
    DevRankings,
    JudgeCheck,
    compare_rankings,
    dev_batches,
)
from msmarco_qdrant.train.judge_parts import PartFiles
from msmarco_qdrant.train.judge_scorer import JudgeInfo
from msmarco_qdrant.train.score_files import check_extra
from msmarco_qdrant.train.texts import PassageTexts

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.evaluation.records import Qrels


@suggest_keywords
def judge_on_ray(  # noqa: PLR0913  # all but seven have defaults
    judge: JudgeMaker,
    url: str,
    queries: Iterable[Query],
    negatives: Negatives,
    out: str | PathLike[str],
    *,
    dev_queries: Sequence[Query],
    dev_qrels: Qrels,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    collection: str = "msmarco",
    model: str | PathLike[str] | None = None,
    make_encoder: Callable[[], Encoder] | None = None,
    encoder_options: EncoderChoices | None = None,
    connection: Connection = DEFAULT_CONNECTION,
    allow_weak: bool = False,
    mode: SearchMode | None = None,
    depth: int = 100,
    tenant: str | None = None,
    progress: bool = False,
) -> JudgeReport:
    """Score positives and mined candidates with a stronger model, on a Ray cluster.

    The folder ends as that of `judge_negatives` does, with the same files; only this machine needs
    it. Run it again to resume, also after this process was killed, and also without Ray.

    Args:
        judge: The location of a cross-encoder or a bi-encoder; or a function that returns one,
            called in each worker. A directory must be on every machine.
        url: The URL of the server, as every machine reaches it.
        queries: The texts of the mined queries.
        negatives: A file or folder of mined negatives, or the queries.
        out: A new folder, or one that the same call has begun.
        dev_queries: Queries that decide whether the judge is good enough.
        dev_qrels: Their judgments.
        address: The cluster; see `ingest_dataset`.
        workers: Processes that score; by default one per GPU, or one per 4 processors.
        cpus_per_worker: Processors of each.
        gpus_per_worker: GPUs of each, 0 for none.
        collection: The collection that holds the passages.
        model: Location of its model, for the dev queries; by default the name in its metadata.
        make_encoder: Makes its encoder in each worker, instead of `model`.
        encoder_options: Device, precision and backend of the judge and of that model.
        connection: API key, port and timeouts; sent to the workers.
        allow_weak: See `judge_negatives`, also for the others.
        mode: Mode of the search that the judge must improve on.
        depth: Candidates per dev query.
        tenant: Only this tenant's passages.
        progress: Show it on standard error.

    Raises:
        WeakJudgeError: If the judge is not better than the search.
        UsageError: As `judge_negatives`, or if `url` is not that of a server.
        SourceError: If the negatives cannot be read.
        ModelError: If a machine cannot load the judge or the model, or has another one.
        StoreError: If the server cannot be reached, or fails.
        OutputError: If the folder cannot be written, or another process judges into it.
        WorkerError: If no cluster answers, or too many workers are lost.
        MissingExtraError: Without the extras `train` and `ray`.
    """
    check_extra("judging")
    check_server_url(url, "judging", "other machines cannot read a directory")
    cluster = ClusterOptions(address, workers, cpus_per_worker, gpus_per_worker)
    models = for_workers(ModelChoice.of(model, encoder_options))
    check_model(models, make_encoder, loads_others=True)
    inputs = JudgeInputs.of(
        collection=collection,
        queries=queries,
        negatives=negatives,
        dev_queries=dev_queries,
        dev_qrels=dev_qrels,
        mode=mode,
        depth=depth,
        tenant=tenant,
    )
    clients = ClientSettings(url, connection, models, make_encoder, collection)
    settings = JudgeSettings(_to_maker(judge), clients, inputs.mode, depth, tenant)
    with ExitStack() as stack:
        client = stack.enter_context(clients.open(collection, bm25_only=True))
        size = stack.enter_context(cluster.connected())
        at_once = SPLITS_AT_ONCE_ON_GPU if size.gpus else 1
        pool = WorkerPool[Any](JudgeWorker, settings, size, at_once)
        stack.callback(pool.close)
        steps = _RaySteps(pool, client, inputs, outage_policy(connection.retry_s))
        return run_judging(out, steps, inputs, allow_weak=allow_weak, progress=progress)


def _to_maker(judge: object) -> JudgeMaker:
    """Return the location of a judge, or its maker; refuse a loaded one."""
    if isinstance(judge, str | PathLike):
        return absolute_model(judge)
    if not callable(judge):
        raise UsageError(
            "judge must be the location of a model, or a function that returns one, as each worker "
            f"loads its own, got {with_article(type(judge).__name__)}"
        )
    return judge


class _RaySteps:
    """The judge in the workers.

    Args:
        pool: The workers.
        client: A client on the collection.
        inputs: What is judged.
        policy: Retries of failed parts.
    """

    def __init__(
        self,
        pool: WorkerPool[Any],
        client: SearchClient,
        inputs: JudgeInputs,
        policy: TaskPolicy,
    ) -> None:
        self._pool = pool
        self._client = client
        self._inputs = inputs
        self._policy = policy
        self.judge: JudgeInfo = pool.load()

    def check(self, on_queries: Callable[[int, int], None]) -> JudgeCheck:
        inputs = self._inputs
        batches = dev_batches(inputs.dev_queries, inputs.dev_qrels)
        total, done, rankings = sum(map(len, batches)), 0, list[DevRankings]()

        def finish(work: DevWork, outcome: DevRankings) -> None:
            nonlocal done
            rankings.append(outcome)
            done += len(work.queries)
            on_queries(done, total)

        with tempfile.TemporaryDirectory(prefix="msmarco-qdrant-") as folder:
            works = WorkFiles[DevWork](Path(folder))
            for number, batch in enumerate(batches):
                works.put(number, DevWork(batch))
            run_parts(self._pool, self.judge, works, finish, self._policy)
        return compare_rankings(inputs.dev_queries, inputs.dev_qrels, rankings)

    def judge_parts(self, files: PartFiles, on_pairs: Callable[[int], None]) -> None:
        queries = self._inputs.texts()
        texts = PassageTexts(self._client, tenant=self._inputs.tenant)

        def finish(work: ScoreWork, scores: dict[str, dict[str, float]]) -> None:
            texts.note(work.part.passages(), {pid for found in scores.values() for pid in found})
            files.write(work.part, scores.items())
            on_pairs(work.part.pairs)

        with tempfile.TemporaryDirectory(prefix="msmarco-qdrant-") as folder:
            works = WorkFiles[ScoreWork](Path(folder))
            for part in self._inputs.parts():
                if files.has(part):
                    on_pairs(part.pairs)
                    continue
                if not works.numbers:
                    texts.get(part.passages())  # refuses passages of another collection
                works.put(part.number, ScoreWork(part, {qid: queries[qid] for qid in part.pids}))
            run_parts(self._pool, self.judge, works, finish, self._policy)
