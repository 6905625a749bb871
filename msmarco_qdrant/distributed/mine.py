"""Mining of candidates by the workers of a Ray cluster.

``read queries → cut into parts → mine parts → write them``. The parts are those of a mining by one
process, which this process writes, so a later run, on Ray or not, resumes with the missing ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.distributed.clients import ClientSettings
from msmarco_qdrant.distributed.mine_worker import MineJob, MineWorker, SystemSettings
from msmarco_qdrant.distributed.parts import WorkFiles, run_parts
from msmarco_qdrant.distributed.pool import WorkerPool
from msmarco_qdrant.distributed.tasks import outage_policy
from msmarco_qdrant.distributed.values import (
    ClusterOptions,
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
from msmarco_qdrant.train.mine import MineRun, OnMined, to_ranks, warn_without_graph, with_bar
from msmarco_qdrant.train.mine_parts import MinedPart, QueryPart
from msmarco_qdrant.train.mine_report import MineReport
from msmarco_qdrant.train.mine_search import require_positives
from msmarco_qdrant.train.mine_systems import check_modes, make_systems, mine_settings
from msmarco_qdrant.train.out_folder import OutFolder
from msmarco_qdrant.train.records import Positives

_PARTS_AT_ONCE = 2  # one begins or ends while the other is searched for


@suggest_keywords
def mine_on_ray(  # noqa: PLR0913  # all but four have defaults
    url: str,
    queries: Iterable[Query],
    positives: Positives,
    out: str | PathLike[str],
    *,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    collection: str = "msmarco",
    also: Sequence[str] = (),
    model: str | PathLike[str] | None = None,
    make_encoder: Callable[[], Encoder] | None = None,
    encoder_options: EncoderChoices | None = None,
    connection: Connection = DEFAULT_CONNECTION,
    modes: Sequence[SearchMode] = ("dense",),
    depth: int = 100,
    first_rank: int = 1,
    tenant: str | None = None,
    on_progress: OnMined | None = None,
    progress: bool = False,
) -> MineReport:
    """Search for candidates for hard negatives, on all machines of a Ray cluster.

    The folder ends as that of `mine_negatives` does, with the same files; only this machine needs
    it. Run it again to resume, also after this process was killed, and also without Ray.

    Args:
        url: The URL of the server, as every machine reaches it.
        queries: The training queries; this process keeps those of missing parts in a temporary
            file.
        positives: The pids that answer each query, by qid.
        out: A new folder, or one that the same call has begun.
        address: The cluster; see `ingest_dataset`.
        workers: Processes that search; by default one per GPU, or one per 4 processors.
        cpus_per_worker: Processors of each.
        gpus_per_worker: GPUs of each, 0 for none; by default none if all modes are "bm25".
        collection: Name of the collection.
        also: Other collections to search. With some, systems are named by their collections, as
            those of several clients of `mine_negatives`.
        model: Location of the model of `collection`, by default the name in its metadata; a
            directory must be on every machine.
        make_encoder: Makes its encoder in each worker, instead of `model`.
        encoder_options: Device, precision and backend of the encoders.
        connection: API key, port and timeouts; sent to the workers.
        modes: See `mine_negatives`, also for the others.
        depth: The last rank of a candidate.
        first_rank: The first rank of a candidate.
        tenant: Only this tenant's passages.
        on_progress: Called with the number of queries done, and of all, after each part.
        progress: Show it on standard error.

    Raises:
        UsageError: As `mine_negatives`, or if `url` is not that of a server.
        ModelError: If a machine cannot load the model, or has another one.
        StoreError: If the server cannot be reached, or fails.
        OutputError: If the folder cannot be written, or another process mines into it.
        WorkerError: If no cluster answers, or too many workers are lost.
        MissingExtraError: Without the extra `ray`.
    """
    check_server_url(url, "mining", "other machines cannot read a directory")
    ranks = to_ranks(depth, first_rank)
    check_modes(modes)
    if gpus_per_worker is None and {*modes} == {"bm25"}:
        gpus_per_worker = 0
    cluster = ClusterOptions(address, workers, cpus_per_worker, gpus_per_worker)
    models = for_workers(ModelChoice.of(model, encoder_options))
    check_model(models, make_encoder, loads_others=bool(also))
    settings = ClientSettings(url, connection, models, make_encoder, collection)
    with ExitStack() as stack:
        clients = _open_clients(stack, settings, also)
        systems = make_systems(clients if also else clients[collection], modes, tenant)
        warn_without_graph(systems)
        job = MineJob([SystemSettings.of(system) for system in systems], ranks)
        folder = stack.enter_context(OutFolder(out, "mine", mine_settings(systems, ranks)))
        if progress:
            on_progress = with_bar(stack, on_progress)
        run = MineRun(systems, positives, folder, ranks, on_progress)
        kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msmarco-qdrant-")))
        works = WorkFiles[QueryPart](kept)

        def finish(part: QueryPart, mined: MinedPart) -> None:
            run.add(part, mined)
            run.show(len(part.queries) * len(systems))

        def complete(parts: Iterator[QueryPart]) -> None:
            for part in parts:
                if part.number == 0:
                    require_positives(systems, part)
                works.put(part.number, part)
            if not works.numbers:
                return
            size = stack.enter_context(cluster.connected())
            pool = WorkerPool[MinedPart](MineWorker, settings, size, _PARTS_AT_ONCE)
            stack.callback(pool.close)
            run_parts(pool, job, works, finish, outage_policy(connection.retry_s))

        return run.mine(queries, complete)


def _open_clients(
    stack: ExitStack, settings: ClientSettings, also: Sequence[str]
) -> dict[str, SearchClient]:
    """Open a client without a model on each collection."""
    if isinstance(also, str):
        raise UsageError(f"also must be a list of collections, got {also!r}")
    store = stack.enter_context(settings.open_store())
    clients: dict[str, SearchClient] = {}
    for name in (settings.collection, *also):
        if name in clients:
            raise UsageError(f"also must be other collections than {name!r}, got it twice")
        clients[name] = SearchClient(store, name, None)
    return clients
