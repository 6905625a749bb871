"""Options and input files of `evaluate`, checked before a store is opened or a model loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.options import chosen_fusion, refuse_unused
from msmarco_qdrant.cli.output import check_output
from msmarco_qdrant.core.search_types import FusionMethod, SearchMode
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.evaluation import EvaluationPlan, Qrels, Run, System
    from msmarco_qdrant.search.options import RerankDepth

_OF_JUDGMENTS = (
    *("modes", "measures", "limit", "candidates", "compare", "run", "reranker", "exact", "tune"),
    *("save", "exclude_self", "tenant", "topics", "per_query", "against", "against_store"),
)
_NOT_OF_TUNING = (
    *("modes", "fusion", "dense_weight", "rerank_depth", "limit", "candidates", "compare"),
    *("exact", "run", "report", "topics", "per_query", "against", "against_store"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """The options of `evaluate`, as given."""

    queries: Path | None
    qrels: Path | None
    dataset: str | None
    modes: tuple[SearchMode, ...]
    fusion: FusionMethod | None
    dense_weight: float | None
    reranker: str | None
    rerank_depth: RerankDepth
    measures: str
    limit: int | None
    candidates: Path | None
    compare: tuple[Path, ...]
    exact: bool
    ann: bool
    tune: bool
    save: bool
    exclude_self: bool
    tenant: str | None
    topics: Path | None
    per_query: bool
    against: str | None
    against_store: str | None
    model: str | None
    run: Path | None
    report: Path | None
    as_json: bool

    @property
    def has_judgments(self) -> bool:
        """True if answers are measured, not only the index."""
        return self.qrels is not None or self.dataset is not None

    @property
    def against_name(self) -> str | None:
        """The name of the other collection or store in tables; None without one."""
        return self.against or (None if self.against_store is None else "the other store")

    @property
    def first_measure(self) -> str:
        """The first of the measures; all of them are checked."""
        from msmarco_qdrant.evaluation import parse_measures

        return parse_measures(self.measures)[0]

    @property
    def run_files(self) -> list[Path]:
        """The runs to read, candidates first."""
        return [*([] if self.candidates is None else [self.candidates]), *self.compare]

    def check(self) -> None:
        """Refuse options that exclude each other or have no effect."""
        if (self.queries is None) == (self.dataset is None):
            raise click.UsageError("pass --queries FILE (and --qrels FILE), or --dataset NAME")
        if self.dataset is not None and self.qrels is not None:
            raise click.UsageError("--dataset has its own judgments: omit --qrels")
        if self.tune and self.ann:
            raise click.UsageError("pass either --tune or --ann, not both")
        if not self.has_judgments and not self.ann:
            raise click.UsageError("pass --qrels FILE to measure answers, or --ann for the index")
        refuse_unused("--qrels or --dataset", used=self.has_judgments, options=_OF_JUDGMENTS)
        refuse_unused("--tune", used=self.tune, options=["save"])
        refuse_unused("answers, not --ann", used=not self.ann, options=["tenant"])
        refuse_unused("measured runs, not --tune", used=not self.tune, options=_NOT_OF_TUNING)
        refuse_unused("--reranker", used=self.reranker is not None, options=["rerank_depth"])
        refuse_unused(
            "searches without --candidates",
            used=self.candidates is None,
            options=["limit", "exact", "rerank_depth"],
        )
        hybrid = "hybrid" in self.modes
        refuse_unused("--mode hybrid", used=hybrid, options=["fusion", "dense_weight"])

    def systems(self) -> list[System]:
        """Return a system per mode, then with --reranker each again with reranking."""
        from msmarco_qdrant.evaluation import System

        fusion = chosen_fusion(self.fusion, self.dense_weight)
        depth = self.rerank_depth or "auto"
        return [
            System(mode, fusion, rerank_depth, self.exact)
            for rerank_depth in ((None,) if self.reranker is None else (None, depth))
            for mode in dict.fromkeys(self.modes)
        ]


@dataclass(frozen=True, slots=True)
class EvaluateInput:
    """Everything that `evaluate` reads, checked.

    `plan` is None without judgments; `outputs` has the file for the run of each system, by its
    name.
    """

    queries: Sequence[Query]
    qrels: Qrels
    plan: EvaluationPlan | None
    outputs: Mapping[str, Path]
    topics: Mapping[str, str] | None = None


def read_input(given: EvaluateOptions) -> EvaluateInput:
    """Read and check everything, also the files to write and the libraries of a report."""
    from msmarco_qdrant.evaluation import plan_evaluation
    from msmarco_qdrant.evaluation.runs import check_id
    from msmarco_qdrant.evaluation.systems import system_in
    from msmarco_qdrant.evaluation.topics import check_topics, read_topics
    from msmarco_qdrant.evaluation.tuning import check_tuning

    systems = given.systems()
    others = [system_in(one, given.against_name) for one in systems if given.against_name]
    outputs = run_outputs(given.run, [*systems, *others])
    _check_outputs(given, list(outputs.values()))
    queries, qrels = _read_queries(given)
    runs = _read_runs(given, [*systems, *others])
    topics = None if given.topics is None else read_topics(given.topics)
    if topics is not None:
        check_topics(topics, [query.qid for query in queries if qrels.get(query.qid)])
    plan = None
    if given.tune:
        check_tuning(queries, qrels, given.first_measure)
    elif given.has_judgments:
        candidates = None if given.candidates is None else runs.pop(0)
        plan = plan_evaluation(
            queries,
            qrels,
            systems,
            measures=given.measures,
            depth=given.limit,
            candidates=candidates,
            others=runs,
            unjudged=bool(outputs),
            exclude_self=given.exclude_self,
            tenant=given.tenant,
        )
        if outputs:  # refuse qids that a run cannot contain; pids are checked with each answer
            for query in queries:
                check_id(query.qid)
    if given.report is not None:
        _check_report_libraries()
    return EvaluateInput(queries, qrels, plan, outputs, topics)


def _read_queries(given: EvaluateOptions) -> tuple[list[Query], Qrels]:
    from msmarco_qdrant.evaluation import load_qrels, load_queries, read_qrels
    from msmarco_qdrant.sources.corpus import read_queries

    if given.dataset is not None:
        return load_queries(given.dataset), load_qrels(given.dataset)
    queries = list(read_queries(given.queries)) if given.queries is not None else []
    return queries, read_qrels(given.qrels) if given.qrels is not None else {}


def _read_runs(given: EvaluateOptions, systems: Sequence[System]) -> list[Run]:
    """Read the runs, each with the name of its file, or its path if the name is not unique."""
    from msmarco_qdrant.evaluation import read_run

    runs = [read_run(path) for path in given.run_files]
    names = Counter([*(system.name for system in systems), *(run.name for run in runs)])
    return [
        run if names[run.name] == 1 else replace(run, name=click.format_filename(path))
        for run, path in zip(runs, given.run_files, strict=True)
    ]


def run_outputs(run: Path | None, systems: Sequence[System]) -> dict[str, Path]:
    """Return the file for the run of each system: `run`, or NAME.SYSTEM.trec for several."""
    if run is None:
        return {}
    if len(systems) == 1:
        return {systems[0].name: run}
    packed = ".gz" if run.suffix == ".gz" else ""
    plain = run.with_suffix("") if packed else run
    return {
        system.name: run.with_name(
            f"{plain.stem}.{system.name.replace(' ', '-')}{plain.suffix}{packed}"
        )
        for system in systems
    }


def _check_outputs(given: EvaluateOptions, outputs: Sequence[Path]) -> None:
    files = (given.queries, given.qrels, *given.run_files)
    inputs = [str(file) for file in files if file is not None]
    for run in outputs:
        check_output(run, "--run", inputs)
    if given.report is not None:
        check_output(given.report, "--report", inputs)
        if given.report in outputs:
            raise UsageError(f"--report {given.report} is also a file of --run; pass another file")


def _check_report_libraries() -> None:
    """Make an empty report, so that a missing library is reported early."""
    from msmarco_qdrant.evaluation import AnnPoint, AnnSweep, report_html

    point = AnnPoint("", 1, 1.0, 1.0, "", 1.0, 1.0)
    report_html("", {}, sweep=AnnSweep(1, 1, 1.0, (point,)))
