"""The command `mteb`: tasks of MTEB and BEIR through a store."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    FILE,
    LocalPath,
    exact_option,
    json_option,
    model_option,
    refuse_unused,
    settings_options,
)
from msmarco_qdrant.cli.output import echo, print_json
from msmarco_qdrant.cli.run_options import mode_option
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msmarco_qdrant.settings import Settings

_SHOWN = ("ndcg_at_10", "mrr_at_10", "recall_at_100")


@click.command(
    cls=Command,
    examples=[
        "NFCorpus --model all-MiniLM-L6-v2",
        "--corpus corpus.jsonl --queries queries.jsonl --qrels qrels/test.tsv --mode hybrid",
    ],
)
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@click.option("--corpus", type=FILE, multiple=True, help="A file of passages: a task of its own.")
@click.option("--queries", type=FILE, help="With --corpus: its queries.")
@click.option("--qrels", type=FILE, help="With --corpus: the judgments.")
@click.option("--name", metavar="NAME", help="With --corpus: name of the task.  [default: Local]")
@settings_options("store", "transport", "device", "precision")
@model_option(
    "Model to encode with.  [default: MSMARCO_QDRANT_MODEL or msmarco-distilbert-base-v3]"
)
@mode_option("Compare vectors, words, or both.")
@exact_option
@click.option("--reranker", metavar="NAME_OR_DIR", help="Rerank the best hits.")
@click.option(
    "--rerank-depth",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="With --reranker: number of hits to rerank.  [default: 100]",
)
@click.option(
    "--results",
    type=LocalPath(file_okay=False),
    metavar="DIR",
    help="Store results in MTEB's form in this folder; tasks with a result there are not run.",
)
@json_option
def mteb(  # noqa: PLR0913  # click passes every option
    *,
    settings: Settings,
    tasks: tuple[str, ...],
    corpus: tuple[Path, ...],
    queries: Path | None,
    qrels: Path | None,
    name: str | None,
    as_json: bool,
    results: Path | None,
    model: str | None,
    reranker: str | None,
    **search: Any,
) -> None:
    """Run retrieval tasks of MTEB or BEIR through a store.

    TASK is a name of MTEB, whose data it downloads. Or files make a task, of which --corpus,
    --queries and --qrels are needed. Each corpus becomes a collection, and stays: another run
    encodes nothing again.
    """
    _check(tasks, corpus, queries, qrels, name)
    refuse_unused("--reranker", used=reranker is not None, options=["rerank_depth"])
    from msmarco_qdrant.encoding import load_encoder, load_reranker
    from msmarco_qdrant.integrations.mteb import MsmarcoSearch
    from msmarco_qdrant.integrations.mteb.tasks import local_task, named_tasks, run_tasks
    from msmarco_qdrant.stores import open_store

    chosen = named_tasks(tasks)
    if corpus and queries is not None and qrels is not None:
        chosen = [local_task(corpus, queries, qrels, name=name or "Local")]
    encoder = load_encoder(model or settings.model, **asdict(settings.encoder_options))
    scorer = load_reranker(reranker) if reranker else None
    with closing(open_store(settings.store, create=True, connection=settings.connection)) as store:
        searching = MsmarcoSearch(store, encoder, reranker=scorer, progress=True, **search)
        found = run_tasks(searching, chosen, results)
    if as_json:
        print_json({"model": encoder.info.model, "tasks": found})
    else:
        _print(found)


def _check(
    tasks: Sequence[str],
    corpus: Sequence[Path],
    queries: Path | None,
    qrels: Path | None,
    name: str | None,
) -> None:
    given = [bool(corpus), queries is not None, qrels is not None]
    if any(given) and not all(given):
        raise UsageError("a task of files needs all of --corpus, --queries and --qrels")
    if bool(tasks) == any(given):
        raise UsageError("pass either TASK, or --corpus, --queries and --qrels, not both or none")
    if name is not None and not any(given):
        raise UsageError("--name needs --corpus: tasks of MTEB have their own")


def _print(found: Sequence[Mapping[str, Any]]) -> None:
    for one in found:
        shown = "  ".join(f"{name} {one['scores'][name]:.4f}" for name in _SHOWN)
        echo(f"{one['task']} ({one['subset']}, {one['split']}): {shown}")
