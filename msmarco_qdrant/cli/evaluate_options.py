"""What an evaluation is to do: its options checked, its files read, before anything is asked.

What cannot work is told here, before a store is opened and a model loaded, and not after an hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.options import refuse_without
from msmarco_qdrant.cli.output import check_output
from msmarco_qdrant.core.search_types import Fusion, FusionMethod, SearchMode
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.evaluation import Qrels, Run, System

_OF_JUDGMENTS = ("modes", "measures", "depth", "candidates", "compare", "run", "rerank", "exact")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """The options of `evaluate`, as they were given."""

    store: str | None
    collection: str | None
    queries: Path | None
    qrels: Path | None
    dataset: str | None
    modes: tuple[SearchMode, ...]
    fusion: FusionMethod
    dense_weight: float | None
    rerank: str | None
    rerank_depth: int
    measures: str
    depth: int | None
    candidates: Path | None
    compare: tuple[Path, ...]
    exact: bool
    ann: bool
    model: str | None
    run: Path | None
    report: Path | None
    as_json: bool

    @property
    def judged(self) -> bool:
        """Whether there are judgments."""
        return self.qrels is not None or self.dataset is not None

    @property
    def inputs(self) -> list[str]:
        """The files that are read."""
        files = (self.queries, self.qrels, self.candidates, *self.compare)
        return [str(file) for file in files if file is not None]

    def check(self) -> None:
        """Refuse what does not go together."""
        if (self.queries is None) == (self.dataset is None):
            raise click.UsageError("give --queries FILE (and --qrels FILE), or --dataset NAME")
        if self.dataset is not None and self.qrels is not None:
            raise click.UsageError("--dataset brings its own judgments: leave --qrels out")
        if not self.judged and not self.ann:
            raise click.UsageError("give --qrels FILE to measure answers, or --ann for the index")
        refuse_without("--qrels or --dataset", given=self.judged, options=_OF_JUDGMENTS)
        refuse_without("--rerank", given=self.rerank is not None, options=["rerank_depth"])
        refuse_without(
            "searches without --candidates",
            given=self.candidates is None,
            options=["depth", "exact", "rerank_depth"],
        )
        hybrid = "hybrid" in self.modes
        refuse_without("--mode hybrid", given=hybrid, options=["fusion", "dense_weight"])

    def systems(self) -> list[System]:
        """Each mode once, and then, if there is a cross-encoder, each once more with it."""
        from msmarco_qdrant.evaluation import System

        fusion = Fusion(self.fusion, self.dense_weight)
        return [
            System(mode, fusion, reranked, self.exact)
            for reranked in ((None,) if self.rerank is None else (None, self.rerank_depth))
            for mode in dict.fromkeys(self.modes)
        ]

    def read(self) -> tuple[list[Query], Qrels]:
        """The queries and the judgments, of which there may be none."""
        from msmarco_qdrant.evaluation import load_qrels, load_queries, read_qrels
        from msmarco_qdrant.sources.corpus import read_queries

        if self.dataset is not None:
            return load_queries(self.dataset), load_qrels(self.dataset)
        queries = list(read_queries(self.queries)) if self.queries is not None else []
        return queries, read_qrels(self.qrels) if self.qrels is not None else {}


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What is asked and compared.

    Attributes:
        queries: What is asked.
        qrels: The judgments.
        systems: Who is asked.
        candidates: What alone is ranked.
        others: Runs to measure beside.
        files: Where the run of each system is kept, by its name.
    """

    queries: Sequence[Query]
    qrels: Qrels
    systems: Sequence[System]
    candidates: Run | None
    others: Sequence[Run]
    files: Mapping[str, Path]


def planned(given: EvaluateOptions) -> EvaluationPlan:
    """Read and check everything.

    Raises:
        UsageError: For what cannot be meant, or does not go together.
        SourceError: For a file that cannot be read.
        OutputError: For a file that cannot be written.
        MissingExtraError: If a library is missing that will be needed.
    """
    from msmarco_qdrant.evaluation import check_evaluation

    systems = given.systems()
    files = _run_files(given.run, systems)
    _check_outputs(given, [*files.values()])
    queries, qrels = given.read()
    candidates, others = _read_runs(given, systems)
    if given.judged:
        compared: list[Run | System] = [
            *([candidates] if candidates is not None else []),
            *others,
            *systems,
        ]
        check_evaluation(
            queries,
            qrels,
            compared,
            given.measures,
            candidates,
            depth=given.depth,
            unjudged=bool(files),
        )
        if files:
            _check_qids(queries)
    if given.report is not None:
        _try_report()
    return EvaluationPlan(queries, qrels, systems, candidates, others, files)


def _try_report() -> None:
    """Make a report of nothing, so that a library that is missing is told now."""
    from msmarco_qdrant.evaluation import AnnPoint, AnnSweep, report_html

    point = AnnPoint("", 1, 1.0, 1.0, "", 1.0, 1.0)
    report_html("", {}, sweep=AnnSweep(1, 1, 1.0, (point,)))


def _run_files(run: Path | None, systems: Sequence[System]) -> dict[str, Path]:
    """Where the run of each system is kept, by its name."""
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


def _check_qids(queries: Sequence[Query]) -> None:
    """Refuse what a run cannot hold; pids are looked at as they come."""
    from msmarco_qdrant.evaluation.runs import check_id

    for query in queries:
        check_id(query.qid)


def _check_outputs(given: EvaluateOptions, runs: Sequence[Path]) -> None:
    for run in runs:
        check_output(run, "--run", given.inputs)
    if given.report is not None:
        check_output(given.report, "--report", given.inputs)
        if given.report in runs:
            raise UsageError(f"--report {given.report} is where --run writes; name another file")


def _read_runs(given: EvaluateOptions, systems: Sequence[System]) -> tuple[Run | None, list[Run]]:
    """The candidates and the runs to compare, called by their files' names.

    Where such a name is taken, it is the path as it was given.
    """
    from msmarco_qdrant.evaluation import read_run

    paths = [*([given.candidates] if given.candidates is not None else []), *given.compare]
    runs = [read_run(path) for path in paths]
    names = Counter([*(system.name for system in systems), *(run.name for run in runs)])
    told = [
        run if names[run.name] == 1 else replace(run, name=click.format_filename(path))
        for run, path in zip(runs, paths, strict=True)
    ]
    return (None, told) if given.candidates is None else (told[0], told[1:])
