"""The command `judge`: a stronger model's scores of mined candidates."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import click

from msmarco_qdrant.cli.command_settings import open_search_client
from msmarco_qdrant.cli.completion import complete_files
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.judged_files import file_option, out_option, read_judged
from msmarco_qdrant.cli.options import (
    ENCODER,
    LocalPath,
    json_option,
    model_option,
    settings_options,
    tenant_option,
)
from msmarco_qdrant.cli.output import print_result
from msmarco_qdrant.cli.ray_options import ray_options
from msmarco_qdrant.cli.run_options import depth_option, judge_option
from msmarco_qdrant.cli.signals import advise_resume, exit_on_sigterm
from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.core.search_types import SearchMode

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.evaluation import Qrels
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.train import JudgeReport


class _Files(NamedTuple):
    """The content of the files."""

    queries: list[Query]
    dev_queries: list[Query]
    dev_qrels: Qrels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """The options of `judge`, as given."""

    judge: str
    queries: Path
    negatives: Path
    dev_queries: Path
    dev_qrels: Path
    out: Path
    mode: SearchMode | None
    depth: int
    allow_weak_judge: bool
    tenant: str | None
    model: str | None
    as_json: bool

    def read(self) -> _Files:
        """Read the files, and check them before a model is loaded."""
        from msmarco_qdrant.sources.corpus import read_queries
        from msmarco_qdrant.train.judge_check import check_dev

        dev_queries, dev_qrels = read_judged(self.dev_queries, self.dev_qrels)
        check_dev(dev_queries, dev_qrels)
        return _Files([*read_queries(str(self.queries))], dev_queries, dev_qrels)


_EXAMPLE = (
    "--judge ms-marco-electra-base --queries train.tsv --negatives mined --dev-queries dev.tsv "
    "--dev-qrels dev.txt --out judged"
)


@click.command(
    cls=Command,
    examples=[_EXAMPLE, f"{_EXAMPLE} --ray auto"],
)
@settings_options("store", "transport", "collection", *ENCODER)
@judge_option(
    "The judge: a cross-encoder, or a bi-encoder stronger than the collection's.", required=True
)
@file_option("--queries", "The mined queries: qid<TAB>text or JSON lines.", required=True)
@click.option(
    "--negatives",
    type=LocalPath(),
    metavar="FILE_OR_DIR",
    required=True,
    shell_complete=complete_files,
    help="Mined candidates: the folder of `mine`, or a file of its form.",
)
@file_option(
    "--dev-queries", "Queries that decide whether the judge is good enough.", required=True
)
@file_option("--dev-qrels", "Their judgments, in TREC's or BEIR's format.", required=True)
@out_option("the scores")
@click.option(
    "--mode",
    type=click.Choice(get_args(SearchMode)),
    help="Mode of the search that the judge must improve on.  [default: that of the folder of "
    "`mine`; of several modes hybrid]",
)
@depth_option("Candidates of each dev query.")
@click.option(
    "--allow-weak-judge",
    is_flag=True,
    help="Use a judge that ranks no better than the search.",
)
@ray_options("Score")
@tenant_option
@model_option("Load the collection's model from here.")
@json_option
def judge(*, settings: Settings, ray: dict[str, Any] | None, **options: Any) -> None:
    """Score positives and mined candidates with a stronger model.

    First the judge is judged: it must rank the candidates of the dev queries better than the
    search. Run the same command again to resume.
    """
    from msmarco_qdrant.train.mined_mode import mined_mode

    given = _Given(**options)
    files = given.read()
    mode = given.mode or mined_mode(given.negatives)
    with exit_on_sigterm(), advise_resume("Scores are kept"), ExitStack() as stack:
        report = _judge(stack, settings, given, mode, ray)(
            files.queries,
            given.negatives,
            given.out,
            dev_queries=files.dev_queries,
            dev_qrels=files.dev_qrels,
            allow_weak=given.allow_weak_judge,
            mode=mode,
            depth=given.depth,
            tenant=given.tenant,
            progress=True,
        )
    print_result(to_json_value(report), *str(report).splitlines(), as_json=given.as_json)


def _judge(
    stack: ExitStack,
    settings: Settings,
    given: _Given,
    mode: SearchMode,
    ray: dict[str, Any] | None,
) -> Callable[..., JudgeReport]:
    """Return the function that judges: in this process, or on a cluster."""
    if ray is None:
        from msmarco_qdrant.train import judge_negatives, load_judge

        opened = open_search_client(settings, given.model, bm25=mode == "bm25")
        client = stack.enter_context(opened)
        loaded = load_judge(given.judge, settings.encoder_options)
        return partial(judge_negatives, loaded, client)
    from msmarco_qdrant.distributed import judge_on_ray

    return partial(
        judge_on_ray,
        given.judge,
        settings.store,
        collection=settings.collection,
        model=given.model,
        encoder_options=settings.encoder_options,
        connection=settings.connection,
        **ray,
    )
