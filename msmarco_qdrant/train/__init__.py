"""Hard negatives and training: mine candidates, judge them, choose negatives, train, improve.

The names are imported on first use: mining loads no trainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from msmarco_qdrant.train.bi_encoder import train_bi_encoder
    from msmarco_qdrant.train.choose import choose_negatives, compare_strategies, strategies_table
    from msmarco_qdrant.train.choose_candidates import ChoiceReport
    from msmarco_qdrant.train.choose_strategy import Strategy
    from msmarco_qdrant.train.cross_encoder import train_cross_encoder
    from msmarco_qdrant.train.examples import ExampleCounts
    from msmarco_qdrant.train.improve import improve_collection
    from msmarco_qdrant.train.improve_records import (
        ImproveReport,
        ImproveRound,
        ImproveStep,
        Verdict,
    )
    from msmarco_qdrant.train.improve_tables import improve_text
    from msmarco_qdrant.train.judge import JudgeReport, judge_negatives
    from msmarco_qdrant.train.judge_check import JudgeCheck
    from msmarco_qdrant.train.judge_scorer import load_judge
    from msmarco_qdrant.train.mine import mine_negatives
    from msmarco_qdrant.train.mine_report import MineReport
    from msmarco_qdrant.train.negatives_file import read_negatives, write_negatives
    from msmarco_qdrant.train.positives import read_clicks, read_positives
    from msmarco_qdrant.train.records import MinedQuery, Positives
    from msmarco_qdrant.train.score_files import read_scores, write_scores
    from msmarco_qdrant.train.score_lookup import ScoreLookup, open_scores
    from msmarco_qdrant.train.split import Split, split_queries
    from msmarco_qdrant.train.texts import PassageTexts
    from msmarco_qdrant.train.train_report import DevMeasures, TrainReport

_MODULES = {
    "bi_encoder": "train_bi_encoder",
    "choose": "choose_negatives compare_strategies strategies_table",
    "choose_candidates": "ChoiceReport",
    "choose_strategy": "Strategy",
    "cross_encoder": "train_cross_encoder",
    "examples": "ExampleCounts",
    "improve": "improve_collection",
    "improve_records": "ImproveReport ImproveRound ImproveStep Verdict",
    "improve_tables": "improve_text",
    "judge": "JudgeReport judge_negatives",
    "judge_check": "JudgeCheck",
    "judge_scorer": "load_judge",
    "mine": "mine_negatives",
    "mine_report": "MineReport",
    "negatives_file": "read_negatives write_negatives",
    "positives": "read_clicks read_positives",
    "records": "MinedQuery Positives",
    "score_files": "read_scores write_scores",
    "score_lookup": "ScoreLookup open_scores",
    "split": "Split split_queries",
    "texts": "PassageTexts",
    "train_report": "DevMeasures TrainReport",
}

__all__ = [
    "ChoiceReport",
    "DevMeasures",
    "ExampleCounts",
    "ImproveReport",
    "ImproveRound",
    "ImproveStep",
    "JudgeCheck",
    "JudgeReport",
    "MineReport",
    "MinedQuery",
    "PassageTexts",
    "Positives",
    "ScoreLookup",
    "Split",
    "Strategy",
    "TrainReport",
    "Verdict",
    "choose_negatives",
    "compare_strategies",
    "improve_collection",
    "improve_text",
    "judge_negatives",
    "load_judge",
    "mine_negatives",
    "open_scores",
    "read_clicks",
    "read_negatives",
    "read_positives",
    "read_scores",
    "split_queries",
    "strategies_table",
    "train_bi_encoder",
    "train_cross_encoder",
    "write_negatives",
    "write_scores",
]


__getattr__ = lazy_attributes(__name__, _MODULES)
