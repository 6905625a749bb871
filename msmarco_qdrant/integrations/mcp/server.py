"""A server of the Model Context Protocol over one collection."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from mcp.server import MCPServer
from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, InputRequiredResult, Tool, ToolAnnotations

from msmarco_qdrant import __version__
from msmarco_qdrant.collection.create import check_collection_name
from msmarco_qdrant.collection.tenants import check_tenant
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    EncodingError,
    MsmarcoQdrantError,
    UnsupportedError,
    UsageError,
)
from msmarco_qdrant.integrations.mcp.access import Access
from msmarco_qdrant.integrations.mcp.backend import Backend, ClientBackend
from msmarco_qdrant.integrations.mcp.prompts import add_prompts
from msmarco_qdrant.integrations.mcp.tools import Tools
from msmarco_qdrant.search.async_client import AsyncSearchClient

READS: Final = ("search", "similar", "get", "count", "facets", "list_collections")
WRITES: Final = ("add", "delete")
_TITLES: Final = {
    "search": "Search passages",
    "similar": "Find similar passages",
    "get": "Read passages",
    "count": "Count passages",
    "facets": "Count values of a field",
    "list_collections": "Describe the collections",
    "add": "Add passages",
    "delete": "Delete passages",
}
_INSTRUCTIONS: Final = (
    "Search a collection of passages by meaning or by words. Start with search; "
    "list_collections shows the fields that filters can use. Cite passages by their pid."
)
_STORE: Final = re.compile(r" --store [^`]*(?=`)")
"""The place of the store in a command that an error advises."""
_log = logging.getLogger(__name__)


def create_mcp_server(
    client: AsyncSearchClient | Callable[[], Awaitable[AsyncSearchClient]],
    *,
    write: bool = False,
    tenant: str | None = None,
    collections: Sequence[str] = (),
) -> MCPServer[Any]:
    """Make a server of the Model Context Protocol (MCP) over a search client.

    Its tools are `search`, `similar`, `get`, `count`, `facets` and `list_collections`, and with
    `write` also `add` and `delete`. The collection and the tenant are fixed here: no tool can
    choose them. Run it with its own methods, such as `run_stdio_async`, in the client's loop.

    Args:
        client: A search client, which stays open, or a function that returns one: calls of tools
            wait for it.
        write: True to offer the tools that write.
        tenant: The tenant whose passages are read and written, for a collection with a tenant
            field.
        collections: Other collections of the same store and model, which `search` may name.

    Raises:
        UsageError: For an argument of another type, or an invalid name.
        MissingExtraError: If the extra `mcp` is not installed.
    """
    check_tenant(tenant)
    if not isinstance(write, bool):
        raise UsageError(f"write must be True or False, got {write!r}")
    if isinstance(collections, str):
        raise UsageError(f"collections must be a list, also of one name, got {collections!r}")
    for name in collections:
        check_collection_name(name)
    return server_over(
        ClientBackend(_source(client), tuple(collections)), Access(write=write, tenant=tenant)
    )


def server_over(backend: Backend, access: Access) -> MCPServer[Any]:
    """Make a server over a backend, for callers with the given access unless they have another."""
    return CollectionServer(Tools(backend, access))


class CollectionServer(MCPServer[Any]):
    """Offers each caller the tools of its access, and answers our errors in their own words.

    Args:
        tools: The functions.
    """

    def __init__(self, tools: Tools) -> None:
        super().__init__(
            "msmarco-qdrant",
            title="Passage search",
            instructions=_INSTRUCTIONS,
            version=__version__,
            log_level="WARNING",
        )
        self._tools = tools
        for name in (*READS, *WRITES):
            is_read = name in READS
            self.add_tool(
                getattr(tools, name),
                title=_TITLES[name],
                annotations=ToolAnnotations(
                    title=_TITLES[name],
                    read_only_hint=is_read,
                    destructive_hint=not is_read,  # `add` may replace a passage
                    idempotent_hint=True,
                    open_world_hint=False,
                ),
            )
        add_prompts(self)

    async def list_tools(self) -> list[Tool]:
        """Return the tools of the caller's access."""
        return [tool for tool in await super().list_tools() if self._is_permitted(tool.name)]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool of the caller's access.

        Raises:
            ToolError: If it has none of this name, or the call fails.
        """
        if name in (*READS, *WRITES):
            self._check_call(name, arguments)
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError as exc:
            if (reason := _public_reason(exc.__cause__)) is None:
                raise
            raise ToolError(f"Error executing tool {name}: {reason}") from exc

    def _check_call(self, name: str, arguments: dict[str, Any]) -> None:
        if not self._is_permitted(name):
            raise ToolError(
                f"the tool {name} is not permitted: this server, or the token, only "
                + (
                    "reads; its operator permits writes with --write"
                    if name in WRITES
                    else "writes"
                )
            )
        tool = self._tool_manager.get_tool(name)
        known = [*tool.parameters["properties"]] if tool is not None else []
        for given in arguments:
            if given not in known:
                raise ToolError(
                    f"the tool {name} has no argument {given[:80]!r}: must be one of "
                    f"{', '.join(known)}"
                )

    def _is_permitted(self, name: str) -> bool:
        access = self._tools.access
        return access.write if name in WRITES else access.read


def _public_reason(exc: BaseException | None) -> str | None:
    """Return the reason that a caller may read, None for an internal error.

    Only the log shows paths and hosts.
    """
    match exc:
        case UsageError() | UnsupportedError():
            return _STORE.sub("", str(exc))
        case EncodingError() if exc.__cause__ is None:  # a text without a vector
            return str(exc)
        case CollectionNotFoundError():
            _log.warning("%s", exc)
            return "the collection does not exist"
        case MsmarcoQdrantError():
            _log.warning("%s", exc)
            return "the store or the model cannot be reached: try again soon"
    return None


def _source(
    client: AsyncSearchClient | Callable[[], Awaitable[AsyncSearchClient]],
) -> Callable[[], Awaitable[AsyncSearchClient]]:
    if callable(client):
        return client
    if not isinstance(client, AsyncSearchClient):
        raise UsageError(f"client must be an AsyncSearchClient, got {client!r}")

    async def opened() -> AsyncSearchClient:
        return client

    return opened
