"""The command `mcp`: a server for assistants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from msmarco_qdrant.cli.command_settings import command_env_file, refuse_memory
from msmarco_qdrant.cli.help import Command
from msmarco_qdrant.cli.options import (
    collection_option,
    encoder_options,
    model_option,
    refuse_unused,
    store_option,
    tenant_option,
    transport_option,
)

if TYPE_CHECKING:
    from msmarco_qdrant.integrations.mcp.command import McpOptions
    from msmarco_qdrant.service.settings import SidecarSettings


@click.command(
    cls=Command,
    examples=["--collection msmarco", "--write --store http://localhost:6333", "--http --port 0"],
)
@store_option
@transport_option
@collection_option
@model_option("The collection's model, if it is not to be loaded by its name.")
@click.option(
    "--reranker",
    metavar="NAME_OR_DIR",
    help="Cross-encoder for searches that rerank.  [default: MSMARCO_QDRANT_RERANKER or none]",
)
@tenant_option
@click.option("--write", is_flag=True, help="Offer the tools that add and delete passages, too.")
@click.option(
    "--also",
    multiple=True,
    metavar="NAME",
    help="A collection of the same store and model that searches may name, too. Repeat it for "
    "several.",
)
@click.option("--http", is_flag=True, help="Serve over HTTP instead of standard input and output.")
@click.option(
    "--host",
    metavar="NAME",
    help="With --http: address to listen on; other than loopback only with both tokens.  "
    "[default: MSMARCO_QDRANT_HOST or 127.0.0.1]",
)
@click.option(
    "--port",
    metavar="N",
    help="With --http: port; 0 for any free one.  [default: MSMARCO_QDRANT_PORT or 8080]",
)
@encoder_options
def mcp(
    *,
    model: str | None,
    tenant: str | None,
    write: bool,
    also: tuple[str, ...],
    http: bool,
    **given: str | None,
) -> int:
    """Serve search to assistants by the Model Context Protocol (MCP).

    An assistant starts this command and calls its tools over standard input and output. With
    --http, several assistants share one server at /mcp, which uses the tokens of the sidecar.
    Without --write, nothing can be changed.
    """
    refuse_unused("--http", used=http, options=("host", "port"))
    from msmarco_qdrant.integrations.mcp.command import McpOptions
    from msmarco_qdrant.service.settings import SidecarSettings
    from msmarco_qdrant.settings import load_as

    values = {name: text for name, text in given.items() if text is not None}
    settings = load_as(SidecarSettings, values, command_env_file())
    refuse_memory(settings)
    options = McpOptions(model, tenant, write, also)
    return _serve_http(settings, options) if http else _serve_stdio(settings, options)


def _serve_stdio(settings: SidecarSettings, options: McpOptions) -> int:
    import asyncio

    from msmarco_qdrant.integrations.mcp.command import run_stdio

    number = asyncio.run(run_stdio(settings, options))
    return 128 + number if number else 0


def _serve_http(settings: SidecarSettings, options: McpOptions) -> int:
    import asyncio

    from msmarco_qdrant.integrations.mcp.command import run_http
    from msmarco_qdrant.service.logs import configure_logs

    configure_logs(settings.log_level, settings.secrets)
    asyncio.run(run_http(settings, options))
    return 0
