"""The model card of a trained model: recipe, data, figures and versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.train.train_report import DevMeasures, TrainReport

if TYPE_CHECKING:
    from msmarco_qdrant.core.encoder_types import EncoderInfo

_HEADER = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- sentence-similarity
- feature-extraction
- msmarco-qdrant
---
"""


def model_card(report: TrainReport, info: EncoderInfo) -> str:
    """Return the model card of a bi-encoder in Markdown, with the metadata that the hub reads."""
    about = (
        f"A bi-encoder, trained from `{report.model}` by msmarco-qdrant: {info.encoding}, "
        f"{info.dimension} dimensions.\n"
    )
    return write_card(report, _HEADER, about, _USE)


def write_card(report: TrainReport, header: str, about: str, use: str) -> str:
    """Return a model card.

    Args:
        report: Of the training.
        header: The metadata.
        about: The first paragraph.
        use: How to use the model.
    """
    parts = (
        header,
        f"# {_title(report)}\n",
        about,
        use,
        "## Recipe\n",
        _table(("setting", "value"), _settings(report)),
        "## Data\n",
        _table(("", "count"), _counts(report)),
        *_figures(report),
        "## Versions\n",
        _table(("library", "version"), report.versions.items()),
    )
    return "\n".join(parts)


_USE = """\
To search a collection with it:

```bash
msmarco-qdrant migrate reembed --model DIR
```
"""


def _title(report: TrainReport) -> str:
    return report.out.resolve().name


def _settings(report: TrainReport) -> Iterator[tuple[str, Any]]:
    yield "trained model", f"`{report.model}`"
    yield "its fingerprint", f"`{report.fingerprint}`"
    for name, value in report.settings.items():
        if value is not None:
            yield name.replace("_", " "), value
    yield "steps", report.steps
    yield "kept after step", report.kept_step
    yield "computed in", f"{report.precision} on {report.device}"


def _counts(report: TrainReport) -> Iterator[tuple[str, Any]]:
    counts = report.examples
    yield "queries", counts.queries
    yield "pairs of query and positive", counts.positives
    yield "pairs of query and negative", counts.negatives
    yield "different passages", counts.passages
    yield "trained pairs, over all epochs", report.trained_pairs
    yield "pairs without a score, left out", report.unscored_pairs
    yield "queries without a text, left out", counts.unknown_queries
    yield "passages that the collection lacks, left out", counts.missing_passages


def _figures(report: TrainReport) -> Iterator[str]:
    if (dev := report.dev) is not None:
        yield "## Figures\n"
        yield (
            f"{dev.measure} on {dev.queries:,} dev queries {_protocol(dev)}. They chose the kept "
            "model, so figures on other queries are lower.\n"
        )
        rows: list[tuple[int | str, str]] = [
            (step, f"{value:.4f}") for step, value in sorted(dev.by_step.items())
        ]
        if dev.candidates is not None:
            rows = [("before reranking", f"{dev.candidates:.4f}"), *rows]
        yield _table(("step", dev.measure), rows)


def _protocol(dev: DevMeasures) -> str:
    if dev.candidates is not None:
        return f"after reranking the best {dev.passages:,} of {dev.of_passages:,} passages"
    part = f" of {dev.of_passages:,}" if dev.passages < dev.of_passages else ""
    return f"over {dev.passages:,}{part} passages, by exact search"


def _table(header: tuple[str, str], rows: Any) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "|---|---|"]
    for name, value in rows:
        shown = f"{value:,}" if isinstance(value, int) else value
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines) + "\n"
