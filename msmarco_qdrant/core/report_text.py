"""Reports as text, as commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msmarco_qdrant.core.reports import EncodeReport, IngestReport

# The cause if a stage of an ingest takes the longest.
_BOTTLENECKS = {
    "read": "the source",
    "skip": "the search for unchanged passages",
    "tokenize": "the tokenizer",
    "forward": "the model",
    "sparse": "the computation of BM25 weights",
    "write": "the store",
    "prune": "the search for passages to prune",
    "index": "the index build",
}


def report_text(report: IngestReport) -> str:
    """Return the counts of an ingest as one line."""
    pruning = any(stage.name == "prune" for stage in report.stages)
    pruned = f", {report.pruned:,} pruned" if pruning or report.pruned else ""
    return (
        f"{report.read:,} read: {report.written:,} written, {report.unchanged:,} unchanged, "
        f"{report.rejected:,} rejected{pruned}; {report.seconds:.1f} s, "
        f"{report.passages_per_second:,.1f} passages/s"
    )


def cut_lines(report: IngestReport | EncodeReport) -> list[str]:
    """Return a line about texts that were cut, no line without any."""
    if not report.cut:
        return []
    words = "text exceeds" if report.cut == 1 else "texts exceed"
    return [f"{report.cut:,} {words} the model's maximum length: the model did not read the end"]


def stages_text(report: IngestReport) -> str:
    """Return the share of each stage, longest first, and the cause of the longest."""
    stages = sorted(report.stages, key=lambda stage: stage.seconds, reverse=True)
    shares = [f"{stage.name} {stage.share:.0%}" for stage in stages if stage.share >= 0.005]
    if not shares:
        return "time: too short to measure"
    return f"time: {', '.join(shares)} (limited by {_BOTTLENECKS[stages[0].name]})"
