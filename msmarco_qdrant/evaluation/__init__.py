"""How good answers are: runs and judgments to measures, tests, tables and a report.

The names below are imported when first used: measuring kept runs costs no engine and no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from msmarco_qdrant.evaluation.ann import sweep_ann
    from msmarco_qdrant.evaluation.datasets import load_qrels, load_queries
    from msmarco_qdrant.evaluation.evaluate import (
        Evaluated,
        check_evaluation,
        evaluate_search,
        poorest_queries,
    )
    from msmarco_qdrant.evaluation.measures import DEFAULT_MEASURES, depth_of, parse_measures
    from msmarco_qdrant.evaluation.qrels import read_qrels
    from msmarco_qdrant.evaluation.records import AnnPoint, AnnSweep, Evaluation, Qrels, Run
    from msmarco_qdrant.evaluation.report import report_html
    from msmarco_qdrant.evaluation.runs import collect_run, read_run, save_run, write_run
    from msmarco_qdrant.evaluation.scoring import evaluate_runs, worst_queries
    from msmarco_qdrant.evaluation.systems import System, rank_run, run_queries, search_run
    from msmarco_qdrant.evaluation.tables import (
        evaluation_json,
        evaluation_text,
        sweep_json,
        sweep_text,
    )

_HOME = {
    "DEFAULT_MEASURES": "measures",
    "AnnPoint": "records",
    "AnnSweep": "records",
    "Evaluated": "evaluate",
    "Evaluation": "records",
    "Qrels": "records",
    "Run": "records",
    "System": "systems",
    "check_evaluation": "evaluate",
    "collect_run": "runs",
    "depth_of": "measures",
    "evaluate_runs": "scoring",
    "evaluate_search": "evaluate",
    "evaluation_json": "tables",
    "evaluation_text": "tables",
    "load_qrels": "datasets",
    "load_queries": "datasets",
    "parse_measures": "measures",
    "worst_queries": "scoring",
    "poorest_queries": "evaluate",
    "rank_run": "systems",
    "read_qrels": "qrels",
    "read_run": "runs",
    "report_html": "report",
    "run_queries": "systems",
    "save_run": "runs",
    "search_run": "systems",
    "sweep_ann": "ann",
    "sweep_json": "tables",
    "sweep_text": "tables",
    "write_run": "runs",
}

__all__ = [
    "DEFAULT_MEASURES",
    "AnnPoint",
    "AnnSweep",
    "Evaluated",
    "Evaluation",
    "Qrels",
    "Run",
    "System",
    "check_evaluation",
    "collect_run",
    "depth_of",
    "evaluate_runs",
    "evaluate_search",
    "evaluation_json",
    "evaluation_text",
    "load_qrels",
    "load_queries",
    "parse_measures",
    "poorest_queries",
    "rank_run",
    "read_qrels",
    "read_run",
    "report_html",
    "run_queries",
    "save_run",
    "search_run",
    "sweep_ann",
    "sweep_json",
    "sweep_text",
    "worst_queries",
    "write_run",
]


__getattr__ = lazy_attributes(__name__, _HOME)
