"""The command `serve`: the HTTP sidecar."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.command_settings import command_env_file
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    collection_option,
    encoder_options,
    model_option,
    store_option,
    transport_option,
)
from msmarco_qdrant.errors import MissingExtraError, MsmarcoQdrantError, UsageError

if TYPE_CHECKING:
    from msmarco_qdrant.service.settings import SidecarSettings
    from msmarco_qdrant.service.sidecar import Mount

_FAILED, _USAGE = 1, 2
_OPTIONS = {
    "reranker": "NAME_OR_DIR",
    "host": "NAME",
    "port": "N",
    "spool": "DIR",
    "inbox": "DIR",
    "index": "FIELD=KIND",
}
_PACKAGES = ("fastapi", "prometheus_client", "uvicorn")
_log = logging.getLogger(__name__)


class ServeCommand(Command):
    """Adds options for settings of the sidecar; other commands do not import these settings."""

    @cached_property
    def setting_options(self) -> list[click.Parameter]:
        """The options of `_OPTIONS`, with the descriptions of their settings."""
        from msmarco_qdrant.service.settings import SidecarSettings

        options: list[click.Parameter] = []
        for name, metavar in _OPTIONS.items():
            field = SidecarSettings.model_fields[name]
            default = "none" if field.default is None else field.default
            text = field.description or ""
            help_ = f"{text[:1].upper()}{text[1:]}.  "
            help_ += f"[default: MSMARCO_QDRANT_{name.upper()} or {default}]"
            kind = click.Path() if metavar == "DIR" else None
            several = name == "index"
            options.append(
                click.Option(
                    [f"--{name}"], type=kind, metavar=metavar, help=help_, multiple=several
                )
            )
        return options

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the declared options, those of the settings, and `--help`."""
        params = super().get_params(ctx)
        declared = len(self.params)
        return [*params[:declared], *self.setting_options, *params[declared:]]


@click.command(
    cls=ServeCommand,
    examples=["--model all-MiniLM-L6-v2", "--store http://localhost:6333 --port 8080"],
)
@store_option
@transport_option
@collection_option
@model_option(
    "Model of a new collection; an existing one keeps its own.  [default: MSMARCO_QDRANT_MODEL or "
    "msmarco-distilbert-base-v3]"
)
@encoder_options
@click.option(
    "--mcp",
    is_flag=True,
    default=None,
    help="Serve assistants at /mcp, with tools that read.  [default: MSMARCO_QDRANT_MCP]",
)
@click.option(
    "--mcp-write",
    is_flag=True,
    default=None,
    help="With --mcp: offer the tools that add and delete passages, too.  [default: "
    "MSMARCO_QDRANT_MCP_WRITE]",
)
def serve(*, index: tuple[str, ...], **given: str | bool | None) -> int:
    """Serve search and ingest over HTTP until SIGTERM or Control-C.

    A batch answered with 202 is on disk and survives a crash. Open `/` for the search page and
    `/openapi.json` for the OpenAPI description.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("the sidecar", "serve")
    import asyncio

    from msmarco_qdrant.service.logs import configure_logs
    from msmarco_qdrant.service.settings import SidecarSettings
    from msmarco_qdrant.service.sidecar import Sidecar
    from msmarco_qdrant.settings import load_as

    given["index"] = ",".join(index) or None
    values = {name: str(value) for name, value in given.items() if value is not None}
    settings = load_as(SidecarSettings, values, command_env_file())
    sidecar = Sidecar(settings, mounts=_mounts(settings))
    configure_logs(settings.log_level, settings.secrets)
    try:
        asyncio.run(sidecar.run())
    except MsmarcoQdrantError as exc:  # the last line of the log is JSON too
        _log.critical("%s", exc)
        return _USAGE if isinstance(exc, UsageError) else _FAILED
    if sidecar.left_behind:  # an orderly exit would wait for its thread
        logging.shutdown()
        os._exit(0)
    return 0


def _mounts(settings: SidecarSettings) -> Sequence[Mount]:
    """Return the app for assistants, if it is wanted."""
    if not settings.mcp:
        return ()
    from msmarco_qdrant.integrations.mcp.sidecar import mount_mcp

    return [partial(mount_mcp, write=settings.mcp_write)]
