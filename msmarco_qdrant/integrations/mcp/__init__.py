"""A server of the Model Context Protocol (MCP), so that assistants search a collection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes
from msmarco_qdrant.integrations.extras import imports_of

if TYPE_CHECKING:
    from msmarco_qdrant.integrations.mcp.server import create_mcp_server

with imports_of("mcp", "the MCP server", "mcp"):
    import_module("mcp")  # every module of this package needs it

_MODULES = {"server": "create_mcp_server"}

__all__ = ["create_mcp_server"]


__getattr__ = lazy_attributes(__name__, _MODULES)
