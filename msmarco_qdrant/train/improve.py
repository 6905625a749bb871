"""The whole loop in one call: mine, judge, choose, train, measure, and only then switch."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.advice import command_line
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.options import EncoderChoices, to_encoder_options
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.coverage import SearchedPassages, count_missing_relevant
from msmarco_qdrant.evaluation.measures import DEFAULT_MEASURES, parse_measures
from msmarco_qdrant.evaluation.plan import check_texts
from msmarco_qdrant.evaluation.records import Evaluation, Qrels
from msmarco_qdrant.evaluation.runs import check_id
from msmarco_qdrant.evaluation.scoring import check_qids, evaluate_runs, select_judged
from msmarco_qdrant.runtime.atomic_file import atomic_write_text
from msmarco_qdrant.runtime.progress import ProgressDisplay
from msmarco_qdrant.search.request import check_count
from msmarco_qdrant.train.digests import digest_grades, digest_queries
from msmarco_qdrant.train.improve_clients import ImproveClients
from msmarco_qdrant.train.improve_commands import part_files
from msmarco_qdrant.train.improve_log import StepLog
from msmarco_qdrant.train.improve_options import (
    DEPTH,
    ImproveData,
    ImproveOptions,
    check_options,
    to_modes,
    to_trainings,
    written_strategy,
)
from msmarco_qdrant.train.improve_records import ImproveReport, ImproveRound, ImproveStep
from msmarco_qdrant.train.improve_run import ImproveRun
from msmarco_qdrant.train.improve_verdict import decide
from msmarco_qdrant.train.inputs import require_train_extra
from msmarco_qdrant.train.judge_scorer import to_scorer
from msmarco_qdrant.train.out_folder import OutFolder
from msmarco_qdrant.train.positives import to_qrels
from msmarco_qdrant.train.records import Positives
from msmarco_qdrant.train.settings import TrainSettings
from msmarco_qdrant.train.split import TEST_SHARE, VALIDATION_SHARE, Split, split_queries

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.core.reports import ReembedReport
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.train.choose_strategy import Strategy

MOST_ROUNDS = 10


@suggest_keywords
def improve_collection(  # noqa: PLR0913  # all but four have defaults
    client: SearchClient,
    queries: Collection[Query],
    qrels: Qrels | Positives,
    out: str | PathLike[str],
    *,
    tenant: str | None = None,
    model: str | PathLike[str] | None = None,
    judge: Reranker | Encoder | None = None,
    allow_weak_judge: bool = False,
    strategy: Strategy | str | None = None,
    depth: int = DEPTH,
    mine_modes: Sequence[SearchMode] = ("dense",),
    training: TrainSettings | Mapping[str, Any] | None = None,
    learning_rates: Sequence[float] | None = None,
    rounds: int = 1,
    test_queries: Collection[Query] | None = None,
    test_qrels: Qrels | Positives | None = None,
    test_share: float = TEST_SHARE,
    validation_share: float = VALIDATION_SHARE,
    modes: Sequence[SearchMode] = ("dense", "hybrid"),
    measures: str = DEFAULT_MEASURES,
    apply: bool = False,
    encoder_options: EncoderChoices | None = None,
    on_step: Callable[[ImproveStep], None] | None = None,
    progress: bool = False,
) -> ImproveReport:
    """Train a collection's model on its own queries, and measure it against the old one.

    The queries are split: most are trained on, some choose judges, checkpoints and rounds, and the
    test queries decide at the end whether the new model is better. Until then the collection is
    only read. Run the same call again to resume after an interruption at any moment, or with more
    `rounds` to add some.

    Args:
        client: A client of the collection, with its encoder.
        queries: The queries.
        qrels: Their judgments, of which passages of grade 1 or more are positives; or the positives
            of each query, as `read_positives` and `read_clicks` return them.
        out: The folder for all files: a new one, or that of the same call.
        tenant: The tenant whose queries they are, if the collection has a tenant field: only its
            passages are searched, trained on and measured.
        model: The location of the collection's model; by default its name in the collection.
        judge: A cross-encoder, or a stronger bi-encoder, that scores the candidates.
        allow_weak_judge: Use a judge that does not rank better than the collection's model.
        strategy: How negatives are chosen; see `choose_negatives`. By default "ranks:1-60", with
            a judge "margin:3".
        depth: Candidates per query and mode.
        mine_modes: The modes to find candidates with.
        training: A `TrainSettings`, or a dictionary of its fields. 0 `negatives` train without
            hard negatives.
        learning_rates: Train with each, and keep the best by the validation queries. By default
            that of `training`, if it is given, else 2e-5 and 1e-4.
        rounds: Number of rounds; each mines with the model of the one before, and trains it on.
        test_queries: Test queries of your own. No query is held out then.
        test_qrels: Their judgments or positives.
        test_share: Otherwise the share of the queries to test.
        validation_share: The share of the queries to choose by.
        modes: The modes to compare. The first one must become better, the others not worse.
        measures: Names as in `ir_measures`; the first decides.
        apply: Switch the collection to the new model if it is better, as `reembed_collection`. Not
            with a tenant: the others are not measured.
        encoder_options: How models run: an `EncoderOptions`, a dictionary of its fields, or a
            device such as "cuda:1".
        on_step: Called with each finished step.
        progress: Show it on standard error.

    Returns:
        Steps, figures and the verdict; also in the folder, as `report.json`.

    Raises:
        UsageError: For an invalid argument, too few queries, queries or judgments of another
            collection, a tenant too much or too few, or a folder of another call.
        WeakJudgeError: If the judge does not rank better than the collection's model.
        MissingExtraError: Without the extra `train`.
        ModelError: If a model cannot be loaded or trained, or `model` is not the collection's.
        StoreError: If a store cannot be read or written.
        OutputError: If the folder cannot be written, or another process uses it.
        MigrationError: If the switch fails; the collection keeps its model.
    """
    require_train_extra("improving a collection")
    options = ImproveOptions(
        trainings=to_trainings(training, learning_rates),
        judge=judge,
        allow_weak_judge=allow_weak_judge,
        strategy=written_strategy(strategy, has_judge=judge is not None),
        depth=depth,
        mine_modes=to_modes("mine_modes", mine_modes),
        modes=to_modes("modes", modes),
        measures=parse_measures(measures),
        tenant=tenant,
        encoder_options=to_encoder_options(encoder_options),
        progress=progress,
    )
    _check_rounds(rounds)
    check_count("depth", depth)
    check_options(options)
    if (test_queries is None) != (test_qrels is None):
        raise UsageError("pass test_queries with test_qrels, or neither")
    client.session.current.scope(tenant)  # refuse a tenant too much or too few
    _refuse_apply(tenant, apply=apply)
    _ = client.encoder  # raises without one
    qrels, test_qrels = to_qrels(qrels), None if test_qrels is None else to_qrels(test_qrels)
    split = split_queries(
        queries,
        qrels,
        test=_judged_only(test_queries, test_qrels),
        test_share=test_share,
        validation_share=validation_share,
    )
    data = _to_data(split, qrels, test_qrels or qrels, Path(out))
    _check_passages(client, data, tenant)
    base = str(model or client.metadata.encoder.model)
    return _improve(client, base, data, options, rounds, on_step, apply=apply)


def _improve(
    client: SearchClient,
    model: str,
    data: ImproveData,
    options: ImproveOptions,
    rounds: int,
    on_step: Callable[[ImproveStep], None] | None,
    *,
    apply: bool,
) -> ImproveReport:
    """Run the rounds in the folder, compare their models, and switch to the best one."""
    with ExitStack() as stack:
        settings = _describe(client, data, options)
        folder = stack.enter_context(OutFolder(data.files, "improve", settings))
        display = ProgressDisplay("steps")
        stack.callback(display.close)
        log = StepLog(
            folder,
            on_step or (lambda _step: None),
            display.announce if options.progress else (lambda _line: None),
        )
        write_parts(data)
        clients = ImproveClients(client, model, options, log)
        run = ImproveRun(clients, data, options, log)
        before = run.search_before()
        done = [run.run_round(number) for number in range(1, rounds + 1)]
        report = _report(clients, run, data, options, log, before, done)
        folder.write_json("report.json", to_json_value(report))
        if apply and report.verdict.is_better:
            clients.require_compared(report.verdict.round)
            report = replace(report, switched=_switch(client, report, options))
            folder.write_json("report.json", to_json_value(report))
    return report


def _report(
    clients: ImproveClients,
    run: ImproveRun,
    data: ImproveData,
    options: ImproveOptions,
    log: StepLog,
    before: float,
    rounds: Sequence[ImproveRound],
) -> ImproveReport:
    client = clients.live
    queries, qrels = data.part("test")
    measures = " ".join(options.measures)
    evaluations: dict[str, Evaluation] = {}
    successors: dict[str, tuple[Evaluation, ...]] = {}
    for mode in options.modes:
        runs = run.test_runs(mode, rounds)
        evaluations[mode] = evaluate_runs(queries, qrels, runs, measures)
        successors[mode] = tuple(
            evaluate_runs(queries, qrels, [*pair], measures) for pair in pairwise(runs[1:])
        )
    verdict = decide(rounds, evaluations)
    chosen = rounds[verdict.round - 1].model
    words = ("migrate", "reembed", "--model", chosen)
    command = command_line(*words, collection=client.collection, store=client.store.dsn)
    return ImproveReport(
        out=str(data.files),
        collection=client.collection,
        old_model=clients.model,
        train=len(data.split.train),
        validation=len(data.split.validation),
        test=len(data.split.test),
        validation_before=before,
        steps=tuple(log.steps),
        rounds=tuple(rounds),
        evaluations=evaluations,
        successors=successors,
        verdict=verdict,
        command=command if verdict.is_better else "",
    )


def _switch(client: SearchClient, report: ImproveReport, options: ImproveOptions) -> ReembedReport:
    from msmarco_qdrant.reembed.api import reembed_collection

    return reembed_collection(
        client.store,
        client.collection,
        model=report.model,
        encoder_options=options.encoder_options,
        progress=options.progress,
    )


def _check_rounds(rounds: int) -> None:
    is_count = isinstance(rounds, int) and not isinstance(rounds, bool)
    if not is_count or not 1 <= rounds <= MOST_ROUNDS:
        raise UsageError(f"rounds must be 1 to {MOST_ROUNDS}, got {rounds!r}")


def _judged_only(queries: Collection[Query] | None, qrels: Qrels | None) -> list[Query] | None:
    """Return the test queries with judgments, checked."""
    if queries is None or qrels is None:
        return None
    check_qids(queries)
    judged = select_judged({query.qid for query in queries}, qrels)
    return [query for query in queries if query.qid in judged]


def _to_data(split: Split, qrels: Qrels, test_qrels: Qrels, out: Path) -> ImproveData:
    for part in (split.train, split.validation, split.test):
        check_texts(part)
        for query in part:
            check_id(query.qid)
    return ImproveData(
        split,
        {query.qid: qrels[query.qid] for query in split.train},
        {query.qid: qrels[query.qid] for query in split.validation},
        {query.qid: test_qrels[query.qid] for query in split.test},
        out,
    )


def _check_passages(client: SearchClient, data: ImproveData, tenant: str | None) -> None:
    """Refuse judgments of another collection, or of another tenant."""
    passages = SearchedPassages(client, tenant)
    for qrels in (data.train, data.validation, data.test):
        count_missing_relevant(passages, qrels)


def _refuse_apply(tenant: str | None, *, apply: bool) -> None:
    """Refuse to switch the model of all tenants by the queries of one."""
    if apply and tenant is not None:
        raise UsageError(
            f"apply would switch the model of all tenants, and only {tenant!r} is measured: omit "
            "apply, measure others with the new model, and switch by the command of the report"
        )


def _describe(client: SearchClient, data: ImproveData, options: ImproveOptions) -> dict[str, Any]:
    """Return what decides about the result, for the folder."""
    parts = {}
    for name in ("train", "validation", "test"):
        queries, qrels = data.part(name)
        parts[f"{name} queries"] = digest_queries(queries)
        parts[f"{name} qrels"] = digest_grades(qrels)
    judge = options.judge
    return {
        "collection": client.collection,
        **({} if options.tenant is None else {"tenant": options.tenant}),
        **parts,
        "judge": None if judge is None else to_scorer(judge).identity(),
        "strategy": options.strategy,
        "depth": options.depth,
        "mine_modes": [*options.mine_modes],
        "modes": [*options.modes],
        "measures": [*options.measures],
        **asdict(options.trainings[0]),
        "learning_rate": [one.learning_rate for one in options.trainings],
    }


def write_parts(data: ImproveData) -> None:
    """Write the queries and judgments of each part, for commands that repeat a step."""
    for part in ("train", "validation", "test"):
        queries, qrels = data.part(part)
        texts, grades = part_files(data.files, part)
        with atomic_write_text(texts) as file:
            for query in queries:
                row = {"qid": query.qid, "text": query.text}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        with atomic_write_text(grades) as file:
            file.write("query-id\tcorpus-id\tscore\n")
            for qid, of_query in qrels.items():
                for pid, grade in of_query.items():
                    file.write(f"{qid}\t{pid}\t{grade}\n")
