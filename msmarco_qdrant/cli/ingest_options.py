"""Options of the commands that ingest, and the ingest itself: `ingest`, `quickstart`, `adopt`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from msmarco_qdrant.cli.command_settings import index_notice
from msmarco_qdrant.cli.options import chain_options
from msmarco_qdrant.cli.output import echo, error_json, print_rejects, print_result, report_json
from msmarco_qdrant.core.escape import escape_controls
from msmarco_qdrant.errors import MsmarcoQdrantError, PruneRefusedError

if TYPE_CHECKING:
    from msmarco_qdrant.core.encoder_types import Prompts
    from msmarco_qdrant.core.records import Passage, PrunePolicy, Reject
    from msmarco_qdrant.core.reports import IngestReport
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.sources.rejects import RejectsFile
    from msmarco_qdrant.sources.vector_shards import VectorShards

HAS_REJECTS = 3
"""The exit status of a command that has finished with rejects."""

prompt_options = chain_options(
    click.option(
        "--query-prompt",
        metavar="TEXT",
        help="For a new collection: text in front of each query, such as 'query: ' for E5; "
        "searches use it. With --passage-prompt.",
    ),
    click.option(
        "--passage-prompt",
        metavar="TEXT",
        help="For a new collection: text in front of each passage, such as 'passage: ' for E5. "
        "With --query-prompt.",
    ),
)
index_option = click.option(
    "--index",
    "indexes",
    multiple=True,
    metavar="FIELD=KIND",
    help="For a new collection: index this meta field for fast filters. KIND is keyword, integer, "
    "float, bool, datetime, text (words), geo or tenant. Repeat it for several fields.",
)
bulk_option = click.option(
    "--bulk",
    is_flag=True,
    help="Let a server build the index at the end only, which is faster for many passages.",
)
index_every_option = click.option(
    "--index-every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Build the index of a directory after each N written passages too: an interruption loses "
    "one build at most.  [default: 1000000]",
)
prune_options = chain_options(
    click.option(
        "--prune",
        is_flag=True,
        help="At the end, remove the passages that are not in the sources. Refused for more than a "
        "fifth of the collection, or after rejects.",
    ),
    click.option("--yes", is_flag=True, help="With --prune: remove any number of passages."),
)


def to_prompts(query: str | None, passage: str | None) -> Prompts | None:
    """Return the given prompts; both or neither, as one alone would drop the model's other one."""
    from msmarco_qdrant.core.encoder_types import Prompts

    if query is None and passage is None:
        return None
    if query is None or passage is None:
        raise click.UsageError("pass both --query-prompt and --passage-prompt, '' for none")
    return Prompts(query, passage)


def to_prune_policy(*, yes: bool, allow_rejects: bool) -> PrunePolicy:
    """Return the policy of `--prune` with these options."""
    from msmarco_qdrant.core.records import PrunePolicy

    share = 1.0 if yes else PrunePolicy().max_share
    return PrunePolicy(max_share=share, allow_rejects=allow_rejects)


def ingest_and_print(
    settings: Settings,
    source: Iterable[Passage | Reject] | VectorShards,
    rejected: RejectsFile,
    *,
    allow_rejects: bool,
    as_json: bool,
    add: Callable[[], tuple[dict[str, Any], Sequence[str]]] = lambda: ({}, ()),
    **options: Any,
) -> int:
    """Ingest, print the report and the rejects, and return the exit status.

    Args:
        settings: The settings.
        source: The passages.
        rejected: The file for rejects; closed at the end.
        allow_rejects: End with 0 even with rejects.
        as_json: Print JSON.
        add: Called after the ingest, for fields and lines that follow the report.
        **options: Further arguments of `ingest_passages`.
    """
    refused = None
    with rejected, _printed_on_error(rejected):
        try:
            report = run_ingest(settings, source, on_reject=rejected.write, **options)
        except PruneRefusedError as exc:  # everything before the prune is done
            report, refused = exc.report, exc
    error = {} if refused is None else error_json(refused)
    fields, lines = add()
    shown = report_json(report) | fields | error
    print_result(shown, *str(report).splitlines(), *lines, as_json=as_json)
    print_rejects(rejected)
    if refused is not None:
        raise refused
    return HAS_REJECTS if report.rejected and not allow_rejects else 0


@contextmanager
def _printed_on_error(rejected: RejectsFile) -> Iterator[None]:
    """Print the rejects of an ingest that fails."""
    try:
        yield
    except MsmarcoQdrantError:
        print_rejects(rejected)
        raise


def run_ingest(
    settings: Settings,
    source: Iterable[Passage | Reject] | VectorShards,
    ray: Mapping[str, Any] | None = None,
    **options: Any,
) -> IngestReport:
    """Ingest with the settings and options of `ingest_passages`, and show the progress.

    Args:
        settings: The settings.
        source: The passages.
        ray: The cluster to ingest on, None for this process.
        **options: Further arguments of the function.
    """
    from msmarco_qdrant.collection.create import check_collection_name
    from msmarco_qdrant.ingest.progress import IngestDisplay
    from msmarco_qdrant.sources.vector_shards import VectorShards
    from msmarco_qdrant.stores import redact_dsn

    check_collection_name(settings.collection)
    has_vectors = isinstance(source, VectorShards)
    logging.getLogger("msmarco_qdrant.encoding").setLevel(logging.INFO)  # logs the backend
    echo(f"ingesting into '{settings.collection}' in {redact_dsn(settings.store)}", err=True)
    # On Ray the default depends on the size of the workers.
    window = {"window": settings.window} if "window" in settings.model_fields_set else {}
    with closing(IngestDisplay(escape_controls(index_notice(settings)))) as display:
        try:
            return _ingester(ray)(
                source,
                settings.store,
                collection=settings.collection,
                default_model=settings.model,
                encoder_options=None if has_vectors else settings.encoder_options,
                storage=settings.storage,
                connection=settings.connection,
                on_progress=display,
                **window,
                **options,
            )
        except KeyboardInterrupt:
            written = display.last.report.written if display.last else 0
            echo(
                "",
                f"{written:,} passages were written; run the same command again to resume.",
                err=True,
            )
            raise


def _ingester(ray: Mapping[str, Any] | None) -> Callable[..., IngestReport]:
    """Return the function that ingests: in this process, or on a cluster."""
    if ray is not None:
        from msmarco_qdrant.distributed import ingest_dataset

        return partial(ingest_dataset, **ray)
    from msmarco_qdrant.ingest.api import ingest_passages

    return ingest_passages
