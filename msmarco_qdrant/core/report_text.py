"""Reports as text, as commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msmarco_qdrant.core.reports import (
        BackupReport,
        EncodeReport,
        IngestReport,
        ModelComparison,
        ReembedReport,
        RestoreReport,
    )

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


def encode_text(report: EncodeReport) -> str:
    """Return the report of an encode as one line."""
    found = f" ({report.found:,} already encoded)" if report.found else ""
    return (
        f"{report.read:,} read: {report.encoded:,} encoded{found}, {report.rejected:,} rejected; "
        f"{report.shards} files; {report.seconds:.1f} s, {report.passages_per_second:,.1f} "
        f"passages/s, after {report.startup_seconds:.1f} s of startup"
    )


def backup_text(report: BackupReport) -> str:
    """Return the result of a backup as one line."""
    return (
        f"{report.collection}: {report.passages:,} passages in {report.folder} ({report.kind}, "
        f"{report.bytes / 2**20:,.0f} MiB, {report.seconds:.1f} s)"
    )


def restore_text(report: RestoreReport) -> str:
    """Return the result of a restore as one line."""
    return (
        f"{report.collection} -> {report.physical}: {report.passages:,} passages restored from "
        f"{report.folder} ({report.kind}, {report.seconds:.1f} s)"
    )


def reembed_text(report: ReembedReport) -> str:
    """Return the result of a re-embedding as one line."""
    if report.old == report.new:
        return f"'{report.collection}' already has vectors of {report.model}"
    return (
        f"{report.collection} -> {report.new}: {report.passages:,} passages with vectors of "
        f"{report.model}, {report.copied:,} newly encoded, {report.seconds:.1f} s"
    )


def reembed_details(report: ReembedReport) -> list[str]:
    """Return a line for the passages that are left out, and one for the comparison, if any."""
    lines = []
    if report.without_vector:
        lines.append(f"left out because they have no vector: {', '.join(report.without_vector)}")
    if report.comparison is not None and report.comparison.queries:
        lines.append(_comparison_text(report.comparison))
    return lines


def _comparison_text(found: ModelComparison) -> str:
    sample = f"{found.queries} passages searched by their first words"
    if found.found_before is None or found.overlap is None:
        return f"{sample}: {found.found_after} in the first ten hits"
    return (
        f"{sample}: {found.found_after} in the first ten hits, {found.found_before} before; "
        f"{found.overlap:.0%} of these hits are the same"
    )
