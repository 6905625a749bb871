"""The model card of a trained cross-encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.train.model_card import write_card

if TYPE_CHECKING:
    from msmarco_qdrant.encoding.trainable_pairs import TrainablePairs
    from msmarco_qdrant.train.train_report import TrainReport

_HEADER = """\
---
library_name: sentence-transformers
pipeline_tag: text-ranking
tags:
- sentence-transformers
- cross-encoder
- reranker
- msmarco-qdrant
---
"""
_USE = """\
```bash
msmarco-qdrant search "a question" --reranker DIR
```
"""


def pair_model_card(report: TrainReport, trained: TrainablePairs) -> str:
    """Return a model card in Markdown, with the metadata that the hub reads."""
    head = ", with a new head" if trained.has_new_head else ""
    about = f"A cross-encoder, trained from `{report.model}`{head} by msmarco-qdrant.\n"
    return write_card(report, _HEADER, about, _USE)
