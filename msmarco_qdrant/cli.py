"""The command line: parse, call, print.

Standard output is for answers, as text for people or with `--json` as one JSON document; progress,
warnings and errors go to standard error. Exit status: 0 all went in, 1 failed, 2 wrong usage,
3 finished with rejects, 130 interrupted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from msmarco_qdrant._output import (
    check_output,
    model_json,
    print_description,
    print_hits,
    print_json,
    print_models,
    replacing,
    report_json,
    report_text,
)
from msmarco_qdrant._version import __version__
from msmarco_qdrant.errors import MsmarcoQdrantError, UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.corpus import Corpus, Format
    from msmarco_qdrant.records import IngestReport, Scalar
    from msmarco_qdrant.rejects import RejectsFile
    from msmarco_qdrant.search import SearchClient
    from msmarco_qdrant.settings import Settings
    from msmarco_qdrant.stores import Store

FAILED, USAGE, REJECTS, INTERRUPTED = 1, 2, 3, 130
_F = TypeVar("_F", bound=Callable[..., Any])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        status = cli.main(
            arguments, prog_name="msmarco-qdrant", standalone_mode=False, auto_envvar_prefix=None
        )
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except UsageError as exc:
        return _failed(exc, USAGE)
    except MsmarcoQdrantError as exc:
        return _failed(exc, FAILED)
    except OSError as exc:  # standard output on a full disk, say
        click.echo(f"Error: {exc}", err=True)
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    return int(status or 0)


def _failed(exc: MsmarcoQdrantError, status: int) -> int:
    click.echo(f"Error: {exc}", err=True)
    return status


# ---- options that several commands share -----------------------------------------------------


def _store_option(command: _F) -> _F:
    return click.option(
        "--store",
        metavar="PATH",
        help="Where the passages are kept.  [default: MSMARCO_QDRANT_STORE or ./qdrant_data]",
    )(command)


def _collection_option(command: _F) -> _F:
    return click.option(
        "--collection",
        metavar="NAME",
        help="The collection's name.  [default: MSMARCO_QDRANT_COLLECTION or msmarco]",
    )(command)


def _json_option(command: _F) -> _F:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
    )(command)


def _settings(**given: str | None) -> Settings:
    """The environment's settings, with what was given on the command line on top."""
    from msmarco_qdrant.settings import load_settings

    return load_settings({name: value for name, value in given.items() if value is not None})


@contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    from msmarco_qdrant.stores import open_store

    with closing(open_store(settings.store)) as store:
        yield store


# ---- commands ------------------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="msmarco-qdrant")
def cli() -> None:
    """Search passages by meaning: MS MARCO models of sentence-transformers, kept in Qdrant.

    `msmarco-qdrant quickstart` shows it all in half a minute.
    """


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@_store_option
@_collection_option
@click.option(
    "--model",
    metavar="NAME_OR_DIR",
    help="The model to encode with.  [default: the collection's own, or for a new one "
    "MSMARCO_QDRANT_MODEL or msmarco-distilbert-base-v3]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "tsv", "jsonl", "parquet"]),
    default="auto",
    show_default=True,
    help="How the sources are written.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where rows that cannot go in are written.  [default: rejects-<time>.jsonl]",
)
@click.option("--allow-rejects", is_flag=True, help="Exit with 0 even if rows were rejected.")
@click.option("--max-passages", type=click.IntRange(min=1), metavar="N", help="Stop after N.")
@_json_option
def ingest(  # noqa: PLR0913  # one for each option
    *,
    sources: tuple[str, ...],
    store: str | None,
    collection: str | None,
    model: str | None,
    form: Format,
    rejects: Path | None,
    allow_rejects: bool,
    max_passages: int | None,
    as_json: bool,
) -> int:
    """Encode passages and keep them, creating the collection if need be.

    SOURCE is a file of passages as TSV (pid<TAB>text), JSON lines or Parquet, gzipped or not, or
    '-' for standard input. Running the same command again writes nothing twice, and goes on where
    an earlier run was interrupted. An empty line holds no passage and is skipped.
    """
    from msmarco_qdrant.corpus import Corpus
    from msmarco_qdrant.rejects import RejectsFile

    settings = _settings(store=store, collection=collection)
    corpus = Corpus(sources, format=form, max_line_bytes=settings.max_line_bytes)
    path = rejects or Path(time.strftime("rejects-%Y%m%d-%H%M%S.jsonl"))
    check_output(path, "--rejects", sources)
    with RejectsFile(path) as rejected:
        report = _ingest(settings, corpus, model, max_passages, rejected)
    if as_json:
        print_json(report_json(report))
    else:
        click.echo(report_text(report))
    if report.rejected:
        click.echo(f"rows that did not go in: {report.rejected:,}, written to {path}", err=True)
        click.echo(f"the first of them: {rejected.first}", err=True)
    if not report.read:
        click.echo("the source holds no passage", err=True)
    return REJECTS if report.rejected and not allow_rejects else 0


def _ingest(
    settings: Settings,
    corpus: Corpus,
    model: str | None,
    max_passages: int | None,
    rejected: RejectsFile | None,
) -> IngestReport:
    from msmarco_qdrant._progress import ProgressDisplay
    from msmarco_qdrant.ingest import ingest_passages
    from msmarco_qdrant.migrate import check_collection_name
    from msmarco_qdrant.stores import without_secret

    check_collection_name(settings.collection)
    progress = ProgressDisplay()
    place = without_secret(settings.store)
    click.echo(f"ingesting into '{settings.collection}' in {place}", err=True)
    try:
        return ingest_passages(
            corpus,
            settings.store,
            collection=settings.collection,
            model=model,
            default_model=settings.model,
            max_passages=max_passages,
            window=settings.window,
            on_reject=rejected.write if rejected else None,
            on_progress=progress,
        )
    except KeyboardInterrupt:
        written = progress.last.report.written if progress.last else 0
        click.echo(
            f"\n{written:,} passages were written; run the same command again to go on.", err=True
        )
        raise
    finally:
        progress.close()


@cli.command()
@click.argument("phrase", required=False)
@_store_option
@_collection_option
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    metavar="N",
    help="With a PHRASE: hits wanted.",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Only passages whose meta has this value; several fields must all hold, of several "
    "values of one field any one.",
)
@click.option("--exact", is_flag=True, help="Compare with every passage, without the index.")
@click.option("--model", metavar="NAME_OR_DIR", help="Where to load the collection's model from.")
@click.option(
    "--queries",
    type=click.Path(exists=False, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Search for every query of a file (qid<TAB>text, or JSON lines) instead of PHRASE.",
)
@click.option(
    "--run",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --queries: write the answers as a TREC run.",
)
@click.option(
    "--depth",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="With --queries: hits a query.",
)
@_json_option
def search(  # noqa: PLR0913  # one for each option
    *,
    phrase: str | None,
    store: str | None,
    collection: str | None,
    limit: int,
    filters: tuple[str, ...],
    exact: bool,
    model: str | None,
    queries: Path | None,
    run: Path | None,
    depth: int,
    as_json: bool,
) -> None:
    """Find the passages that answer PHRASE: keywords, a phrase or a question."""
    if (phrase is None) == (queries is None) or (queries is None) != (run is None):
        raise click.UsageError("give a PHRASE, or both --queries FILE and --run FILE")
    _refuse_options_of_the_other_form(one_phrase=phrase is not None)
    from msmarco_qdrant.search import SearchClient

    settings = _settings(store=store, collection=collection)
    meta_filter = _parse_filters(filters)
    if queries is not None and run is not None:
        check_output(run, "--run", [str(queries)])
    with _opened(settings) as opened:
        client = SearchClient.open(opened, collection=settings.collection, model=model)
        if phrase is not None:
            hits = client.search(phrase, limit=limit, meta_filter=meta_filter, exact=exact)
            print_hits(hits, as_json=as_json)
        elif queries is not None and run is not None:
            _search_many(client, queries, run, depth, exact=exact, as_json=as_json)


def _refuse_options_of_the_other_form(*, one_phrase: bool) -> None:
    """An option without effect is a misunderstanding."""
    context = click.get_current_context()
    for name in ("depth",) if one_phrase else ("limit", "filters"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            form = "--queries" if one_phrase else "a PHRASE"
            raise click.UsageError(f"--{name.removesuffix('s')} goes with {form} only")


def _search_many(
    client: SearchClient, queries: Path, run: Path, depth: int, *, exact: bool, as_json: bool
) -> None:
    from msmarco_qdrant.corpus import read_queries
    from msmarco_qdrant.evaluate import run_queries, write_run

    answers = run_queries(client, read_queries(queries), depth=depth, exact=exact)
    with replacing(run) as file:
        count = write_run(answers, file)
    if as_json:
        print_json({"queries": count, "run": str(run)})
    else:
        click.echo(f"{count:,} queries answered in {run}")


def _parse_filters(filters: Sequence[str]) -> dict[str, list[Scalar]] | None:
    """`field=value` pairs; a value matches as a string and as the number or boolean it reads as."""
    parsed: dict[str, list[Scalar]] = {}
    for text in filters:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise click.UsageError(f"--filter {text!r}: expected FIELD=VALUE")
        parsed.setdefault(field, []).extend(_readings(value))
    return parsed or None


def _readings(value: str) -> list[Scalar]:
    readings: list[Scalar] = [value]
    if value in ("true", "false"):
        readings.append(value == "true")
    with suppress(ValueError):
        number = float(value)
        if abs(number) < 2**53:  # where a float equals one integer only, and never for NaN
            readings.append(number)
    with suppress(ValueError):
        integer = int(value)
        if -(2**63) <= integer < 2**63:  # what Qdrant compares with
            readings.append(integer)
    return readings


@cli.command()
@_store_option
@_collection_option
@_json_option
def info(*, store: str | None, collection: str | None, as_json: bool) -> None:
    """Tell what a store holds: each collection's size, index, model and settings."""
    from msmarco_qdrant.inspection import describe_store

    settings = _settings(store=store)
    with _opened(settings) as opened:
        description = describe_store(opened, collection)
    if as_json:
        print_json(asdict(description))
        return
    print_description(description)


@cli.command()
@_json_option
def models(*, as_json: bool) -> None:
    """List the published models, with the figures that their authors published."""
    from msmarco_qdrant.catalog import PUBLISHED_MODELS

    if as_json:
        print_json([model_json(model) for model in PUBLISHED_MODELS])
        return
    print_models()


@cli.command()
@_store_option
@_collection_option
@_json_option
def optimize(*, store: str | None, collection: str | None, as_json: bool) -> None:
    """Build the index over what was written since it was last built.

    `ingest` does this at its end; this is for after an interruption. Until it is done, new
    passages are found by comparing with each of them.
    """
    from msmarco_qdrant._progress import INDEX_NOTICE

    settings = _settings(store=store, collection=collection)
    with _opened(settings) as opened:
        target = opened.collection(settings.collection)
        click.echo(INDEX_NOTICE, err=True)
        started = time.perf_counter()
        target.optimize()
        state, seconds = target.info(), time.perf_counter() - started
    if as_json:
        print_json({**asdict(state), "seconds": seconds})
    else:
        click.echo(f"{state.points:,} passages, {state.indexed:,} vectors indexed, {seconds:.1f} s")


@cli.command()
@_store_option
@click.option("--model", metavar="NAME_OR_DIR", help="The model to encode the sample with.")
def quickstart(*, store: str | None, model: str | None) -> None:
    """Ingest a sample of 300 passages, ask it three questions, and show the answers."""
    from msmarco_qdrant.corpus import Corpus
    from msmarco_qdrant.quickstart import COLLECTION, QUESTIONS, default_model, sample_passages
    from msmarco_qdrant.search import SearchClient

    settings = _settings(store=store, collection=COLLECTION)
    with sample_passages() as path:
        report = _ingest(settings, Corpus(path), model or default_model(), None, None)
    click.echo(report_text(report))
    with SearchClient.open(settings.store, collection=COLLECTION) as client:
        for question in QUESTIONS:
            click.echo(f"\n$ msmarco-qdrant search {question!r} --limit 2")
            print_hits(client.search(question, limit=2), as_json=False)
    click.echo(
        f"\nYour own: msmarco-qdrant ingest FILE --store {settings.store}, then "
        f"msmarco-qdrant search 'a phrase' --store {settings.store}"
    )
