"""The command that runs the sidecar."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from msmarco_qdrant._commands.options import collection_option, encoder_options, store_option
from msmarco_qdrant.errors import MissingExtraError

if TYPE_CHECKING:
    from msmarco_qdrant.service.options import SidecarOptions
    from msmarco_qdrant.settings import SidecarSettings

_BROUGHT = ("fastapi", "prometheus_client", "uvicorn")


@click.command()
@store_option
@collection_option
@click.option(
    "--model",
    metavar="NAME_OR_DIR",
    help="The model of a new collection; one that is there knows its own.  [default: "
    "MSMARCO_QDRANT_MODEL or msmarco-distilbert-base-v3]",
)
@encoder_options
@click.option(
    "--reranker",
    metavar="NAME_OR_DIR",
    help="A cross-encoder such as ms-marco-MiniLM-L6-v2, for searches that ask for it.  [default: "
    "MSMARCO_QDRANT_RERANKER or none]",
)
@click.option(
    "--host",
    metavar="NAME",
    help="Where to listen; elsewhere than on this machine only with tokens, MSMARCO_QDRANT_"
    "READ_TOKEN and MSMARCO_QDRANT_WRITE_TOKEN.  [default: MSMARCO_QDRANT_HOST or 127.0.0.1]",
)
@click.option(
    "--port",
    metavar="N",
    help="The port; 0 for any that is free.  [default: MSMARCO_QDRANT_PORT or 8080]",
)
@click.option(
    "--spool",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where accepted batches wait.  [default: MSMARCO_QDRANT_SPOOL or ./qdrant_spool]",
)
@click.option(
    "--inbox",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A directory whose files are taken in: TSV, JSON lines or Parquet, written under a name "
    "that ends in .tmp and then renamed.  [default: MSMARCO_QDRANT_INBOX or none]",
)
def serve(**given: str | Path | None) -> int:
    """Take passages in by HTTP or as files, and search them, until SIGTERM or Control-C.

    What was answered with 202 is on disk and will be searchable, whatever crashes. The search page
    is at `/`, the interface is described at `/openapi.json`.
    """
    from msmarco_qdrant.settings import load_sidecar_settings

    for package in _BROUGHT:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("the sidecar", "serve")
    texts = {name: str(value) for name, value in given.items() if value is not None}
    settings = load_sidecar_settings(texts)
    return _run(_options(settings), settings.log_level)


def _run(options: SidecarOptions, log_level: str) -> int:
    from msmarco_qdrant.service.logs import configure_logs
    from msmarco_qdrant.service.sidecar import Sidecar

    told_to_nobody = (options.connection.api_key, options.tokens.read, options.tokens.write)
    configure_logs(log_level, [secret for secret in told_to_nobody if secret])
    sidecar = Sidecar(options)
    asyncio.run(sidecar.run())
    if sidecar.left_behind:  # its thread would be in the way of an orderly end
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)
    return 0


def _options(settings: SidecarSettings) -> SidecarOptions:
    from msmarco_qdrant.service.limits import Limits
    from msmarco_qdrant.service.options import SidecarOptions
    from msmarco_qdrant.service.security import Tokens

    read, write = (
        token.get_secret_value() if token else None
        for token in (settings.read_token, settings.write_token)
    )
    return SidecarOptions(
        store=settings.store,
        spool=settings.spool,
        collection=settings.collection,
        model=settings.model,
        reranker=settings.reranker,
        inbox=settings.inbox,
        host=settings.host,
        port=settings.port,
        tokens=Tokens(read, write),
        limits=Limits(
            body_bytes=settings.body_bytes,
            searches=settings.searches,
            search_s=settings.search_s,
        ),
        spool_bytes=settings.spool_bytes,
        spool_batches=settings.spool_batches,
        grace_s=settings.grace_s,
        connection=settings.connection,
        encoder_options=settings.encoder_options,
        storage=settings.storage,
    )
