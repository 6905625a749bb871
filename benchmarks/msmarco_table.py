"""Measured figures next to the published ones.

The table of the page "MSMARCO Models" (v3) of sentence-transformers, and of its siblings, measured
here next to the published figures, in percent: NDCG@10 on TREC DL 2019 and 2020, where the given
candidates are ranked, and MRR@10 on MS MARCO dev, where the whole collection is searched;
cross-encoders rank candidates there, too. Other candidates or a part of the collection give other
figures: the output names them, and shows a difference only if they were those published.
By default every model of the catalog that has figures is measured, and BM25. Models come from the
hub, from installed packages, or from directories.

The folder of data holds the official files, or those of a small part, gzip or not:
collection.tsv, queries.dev.small.tsv, qrels.dev.small.tsv, top1000.dev.tsv (for cross-encoders),
msmarco-test2019-queries.tsv, 2019qrels-pass.txt, msmarco-passagetest2019-top1000.tsv, and the same
of 2020. A column whose files are not there is left out, and said to be.

Each finished figure is kept in the work folder with the values of its queries and the digests of
its files: what was interrupted goes on where it stood, and what was measured on other data is
measured again. A model that cannot be loaded leaves its row empty, and the exit status is 1.

    python benchmarks/msmarco_table.py --data DIR --work DIR [--columns dl19 dl20 dev]
        [--models NAME ...] [--exact] [--drop-stores] [--json FILE]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import Report, Row, json_option
from msmarco_cells import (
    DECIDING,
    WORDS,
    Bench,
    Contender,
    Model,
    contender,
    free_memory,
    identity,
    keep,
    kept,
    log,
    measure,
)
from msmarco_files import COLUMNS, Data, Folder, Kind

from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.encoding.catalog import PUBLISHED_MODELS
from msmarco_qdrant.errors import MsmarcoQdrantError

PUBLISHED_SEARCH = (6_980, 8_841_823)
"""Queries of dev/small, and passages of the collection."""


# ---- rows ----------------------------------------------------------------------------------


def published_names(keys: Sequence[str]) -> list[str]:
    """The models of the catalog that have a figure for one of these columns."""
    wanted = [COLUMNS[key].figure for key in keys]
    return [
        model.name
        for model in PUBLISHED_MODELS
        if any(getattr(model, figure) is not None for figure in wanted)
    ]


class Outcome(NamedTuple):
    """Return figures by column, and the reason for missing ones ("" if nothing failed)."""

    of: Contender
    cells: Mapping[str, dict[str, Any]]
    failure: str


def measure_all(bench: Bench, columns: Sequence[Data], of: Contender) -> Outcome:
    """Every figure of a contender: those that are kept, and the others measured."""
    cells: dict[str, dict[str, Any]] = {}
    model = Model(of)
    try:
        for data in columns:
            if not data.lacking(of.kind):
                cells[data.key] = cell_of(bench, data, model)
    except MsmarcoQdrantError as exc:
        log(f"{of.name}: {exc}")
        return Outcome(of, cells, str(exc))
    return Outcome(of, cells, "")


def cell_of(bench: Bench, data: Data, model: Model) -> dict[str, Any]:
    """One figure, kept or measured and kept."""
    file = bench.file(model.of, data)
    cell = kept(file, identity(bench, data, model.of))
    if cell is None:
        log(f"{model.of.name}, {data.column.title}: measuring")
        cell = measure(bench, data, model)
        keep(file, cell)
        log(f"{model.of.name}, {data.column.title}: {100 * cell['value']:.2f}")
    return cell


def row_of(outcome: Outcome, columns: Sequence[Data], *, remarks: bool) -> Row:
    """Measured, published and the difference, in percent, for each column."""
    shown: list[str] = [outcome.of.name]
    for data in columns:
        cell = outcome.cells.get(data.key)
        figure = getattr(outcome.of.published, data.column.figure, None)
        value = None if cell is None else 100 * cell["value"]
        same = cell is not None and compares(data, outcome.of.kind, cell)
        shown += [
            "-" if value is None else f"{value:.2f}",
            "-" if figure is None else f"{figure.value:.2f}",
            "-" if value is None or figure is None or not same else f"{value - figure.value:+.2f}",
        ]
    if remarks:
        shown.append(" ".join(outcome.failure.split()).replace("|", "\\|"))
    return Row(shown, {"cells": outcome.cells, "failure": outcome.failure})


def compares(data: Data, kind: Kind, cell: Mapping[str, Any]) -> bool:
    """True if a figure has the candidates and passages of the published one."""
    if data.searches(kind):
        return (cell["queries"], cell["passages"]) == PUBLISHED_SEARCH
    return data.official


def head_of(columns: Sequence[Data], *, remarks: bool) -> list[str]:
    """The names of the columns, each once."""
    head = ["model"]
    for data in columns:
        title = data.column.title
        head += [f"{title} {data.column.measure}", f"{title} published", f"{title} difference"]
    return [*head, "remark"] if remarks else head


# ---- captions ------------------------------------------------------------------------------


def left_out(columns: Sequence[Data], kinds: Sequence[Kind]) -> list[str]:
    """A line for each column that lacks files, and the files looked for."""
    lines: list[str] = []
    for data in columns:
        lacking = {kind: data.lacking(kind) for kind in kinds}
        if all(lacking.values()):
            every = [names for files in lacking.values() for names in files]
            lines.append(f"{data.column.title} is left out: {not_found(every)}")
        else:
            lines += [
                f"{data.column.title} is left out for a {kind}: {not_found(files)}"
                for kind, files in lacking.items()
                if files
            ]
    return lines


def not_found(files: Sequence[Sequence[str]]) -> str:
    """Return the names that were looked for, each once."""
    wanted = dict.fromkeys(" or ".join(names) for names in files)
    return f"no {'; no '.join(wanted)} (nor with .gz)"


def caption(bench: Bench, columns: Sequence[Data], outcomes: Sequence[Outcome]) -> list[str]:
    """Describe the measure, queries and passages of each column."""
    lines = []
    for data in columns:
        for kind in dict.fromkeys(outcome.of.kind for outcome in outcomes):
            cells = [
                outcome.cells[data.key]
                for outcome in outcomes
                if outcome.of.kind == kind and data.key in outcome.cells
            ]
            if cells:
                parts = what_was_done(bench, data, kind, cells[0])
                lines.append(f"{data.column.title}, {kind}: {data.column.measure} of {parts}")
    return lines


def what_was_done(bench: Bench, data: Data, kind: Kind, cell: Mapping[str, Any]) -> str:
    """A column in words, for one kind of model."""
    parts = [f"{cell['queries']:,} judged queries"]
    parts += searched(bench, kind, cell) if data.searches(kind) else ranked(data, cell)
    if kind == "baseline":
        bm25, words = Bm25Settings(), data.whole(kind) or data.candidates
        parts.append(
            f"k1={bm25.k} and b={bm25.b} (Elasticsearch's, which were published: 1.2 and 0.75), "
            f"words counted in the {cell['passages']:,} passages of {words.name if words else '-'}"
        )
    return "; ".join(parts)


def searched(bench: Bench, kind: Kind, cell: Mapping[str, Any]) -> list[str]:
    """Describe a full search."""
    way = "" if kind == "baseline" else " exactly" if bench.exact else " through the graph"
    parts = [f"{cell['passages']:,} passages searched{way}"]
    if (cell["queries"], cell["passages"]) != PUBLISHED_SEARCH:
        queries, passages = PUBLISHED_SEARCH
        parts.append(f"published was a search of {passages:,} for {queries:,}: no difference shown")
    return parts


def ranked(data: Data, cell: Mapping[str, Any]) -> list[str]:
    """Describe a ranking of candidates."""
    name = data.candidates.name if data.candidates is not None else "-"
    parts = [f"the {cell['candidates']:,} candidates of {name} ranked"]
    if cell["ranked"] < cell["candidates"]:
        parts.append(f"{cell['candidates'] - cell['ranked']:,} of them not found, left out")
    if not data.official:
        parts.append(f"published was a ranking of {data.column.candidates[0]}: no difference shown")
    return parts


# ---- the command ---------------------------------------------------------------------------


def table(options: argparse.Namespace) -> int:
    """Measure what is not measured yet, and print the table; the exit status."""
    bench = Bench(Folder(options.data), options.work, options.exact)
    named = map(contender, options.models or published_names(options.columns))
    contenders = list({one.slug: one for one in named}.values())
    kinds = list(dict.fromkeys(one.kind for one in contenders))
    wanted = [Data(bench.folder, key) for key in options.columns]
    columns = [data for data in wanted if not all(data.lacking(kind) for kind in kinds)]
    missing = left_out(wanted, kinds)
    if not columns:
        sys.exit("\n".join([*missing, f"nothing can be measured with what is in {options.data}"]))
    for line in missing:
        log(line)
    report = Report(options.json, DECIDING)
    outcomes = list(measured(bench, columns, contenders, drop=options.drop_stores))
    failed = any(outcome.failure for outcome in outcomes)
    print("\n".join([*caption(bench, columns, outcomes), *missing]), end="\n\n")
    rows = [row_of(outcome, columns, remarks=failed) for outcome in outcomes]
    report.table(head_of(columns, remarks=failed), rows)
    return int(failed)


def measured(
    bench: Bench, columns: Sequence[Data], contenders: Sequence[Contender], *, drop: bool
) -> Iterator[Outcome]:
    """One contender after the other; with `drop`, without their stores once all went well."""
    failures = 0
    for one in contenders:
        outcome = measure_all(bench, columns, one)
        yield outcome
        free_memory()
        failures += bool(outcome.failure)
        if drop and not outcome.failure:
            shutil.rmtree(bench.stores(one.slug), ignore_errors=True)
    if drop and not failures:
        shutil.rmtree(bench.stores(WORDS), ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table; 1 if a model could not be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the files")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="what is kept")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--models", nargs="+", metavar="NAME", help="names or directories")
    parser.add_argument("--exact", action="store_true", help="search without the graph")
    parser.add_argument("--drop-stores", action="store_true", help="of a model that is finished")
    json_option(parser)
    return table(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
