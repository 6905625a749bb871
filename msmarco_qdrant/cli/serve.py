"""The command that runs the sidecar."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path

import click

from msmarco_qdrant.cli.options import collection_option, encoder_options, store_option
from msmarco_qdrant.errors import MissingExtraError, MsmarcoQdrantError, UsageError

_FAILED, _USAGE = 1, 2
_log = logging.getLogger(__name__)

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
    for package in _BROUGHT:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("the sidecar", "serve")
    import asyncio

    from msmarco_qdrant.service.logs import configure_logs
    from msmarco_qdrant.service.settings import load_sidecar_settings
    from msmarco_qdrant.service.sidecar import Sidecar

    texts = {name: str(value) for name, value in given.items() if value is not None}
    settings = load_sidecar_settings(texts)
    sidecar = Sidecar(settings.options)
    configure_logs(settings.log_level, settings.secrets)
    try:
        asyncio.run(sidecar.run())
    except MsmarcoQdrantError as exc:  # the log is JSON to its last line
        _log.critical("%s", exc)
        return _USAGE if isinstance(exc, UsageError) else _FAILED
    if sidecar.left_behind:  # its thread would be in the way of an orderly end
        logging.shutdown()
        os._exit(0)
    return 0
