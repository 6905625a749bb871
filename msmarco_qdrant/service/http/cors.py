"""Use by pages of other sites in browsers (CORS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from starlette.middleware.cors import CORSMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp

CORS: Final[Mapping[str, Any]] = {
    "allow_methods": ("GET", "POST", "DELETE"),
    "allow_headers": (
        "Authorization",
        "Content-Type",
        "Content-Encoding",
        "Mcp-Method",
        "Mcp-Name",
        "Mcp-Protocol-Version",
    ),
    "expose_headers": ("Location", "Retry-After", "WWW-Authenticate", "X-Request-Id"),
}
"""Options of the middleware besides the sites; the headers include those of MCP."""


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return an app that pages of these sites may use; "*" for all sites."""
    return CORSMiddleware(app, allow_origins=origins, **CORS) if origins else app
