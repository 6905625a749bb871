"""Search quality: measures, significance tests, tables and a report from runs and judgments.

The names are imported on first use: measuring saved runs loads no engine and no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from msmarco_qdrant.evaluation.ann import sweep_ann
    from msmarco_qdrant.evaluation.datasets import load_qrels, load_queries
    from msmarco_qdrant.evaluation.evaluate import (
        SearchEvaluation,
        evaluate_search,
        find_worst_queries,
        run_evaluation,
    )
    from msmarco_qdrant.evaluation.measures import DEFAULT_MEASURES, depth_of, parse_measures
    from msmarco_qdrant.evaluation.plan import EvaluationPlan, plan_evaluation
    from msmarco_qdrant.evaluation.qrels import read_qrels
    from msmarco_qdrant.evaluation.records import (
        AnnPoint,
        AnnSweep,
        Evaluation,
        Qrels,
        Run,
        Tuning,
    )
    from msmarco_qdrant.evaluation.report import report_html
    from msmarco_qdrant.evaluation.runs import collect_run, read_run, save_run, write_run
    from msmarco_qdrant.evaluation.scoring import evaluate_runs, worst_queries
    from msmarco_qdrant.evaluation.systems import System, rank_run, run_queries, search_run
    from msmarco_qdrant.evaluation.tables import (
        evaluation_json,
        evaluation_text,
        sweep_json,
        sweep_text,
        tuning_json,
        tuning_text,
    )
    from msmarco_qdrant.evaluation.topics import (
        TopicValues,
        break_down,
        queries_table,
        read_topics,
        topics_text,
    )
    from msmarco_qdrant.evaluation.tuning import tune_search

_MODULES = {
    "ann": "sweep_ann",
    "datasets": "load_qrels load_queries",
    "evaluate": "SearchEvaluation evaluate_search find_worst_queries run_evaluation",
    "measures": "DEFAULT_MEASURES depth_of parse_measures",
    "plan": "EvaluationPlan plan_evaluation",
    "qrels": "read_qrels",
    "records": "AnnPoint AnnSweep Evaluation Qrels Run Tuning",
    "report": "report_html",
    "runs": "collect_run read_run save_run write_run",
    "scoring": "evaluate_runs worst_queries",
    "systems": "System rank_run run_queries search_run",
    "tables": "evaluation_json evaluation_text sweep_json sweep_text tuning_json tuning_text",
    "topics": "TopicValues break_down queries_table read_topics topics_text",
    "tuning": "tune_search",
}

__all__ = [
    "DEFAULT_MEASURES",
    "AnnPoint",
    "AnnSweep",
    "Evaluation",
    "EvaluationPlan",
    "Qrels",
    "Run",
    "SearchEvaluation",
    "System",
    "TopicValues",
    "Tuning",
    "break_down",
    "collect_run",
    "depth_of",
    "evaluate_runs",
    "evaluate_search",
    "evaluation_json",
    "evaluation_text",
    "find_worst_queries",
    "load_qrels",
    "load_queries",
    "parse_measures",
    "plan_evaluation",
    "queries_table",
    "rank_run",
    "read_qrels",
    "read_run",
    "read_topics",
    "report_html",
    "run_evaluation",
    "run_queries",
    "save_run",
    "search_run",
    "sweep_ann",
    "sweep_json",
    "sweep_text",
    "topics_text",
    "tune_search",
    "tuning_json",
    "tuning_text",
    "worst_queries",
    "write_run",
]


__getattr__ = lazy_attributes(__name__, _MODULES)
