"""Access of a caller: the tools that it may call, and its tenant."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """Access of a caller.

    Attributes:
        read: True for the tools that read.
        write: True for the tools that write.
        tenant: The tenant whose passages it reads and writes; None in a collection without.
    """

    read: bool = True
    write: bool = False
    tenant: str | None = None


CALLER: ContextVar[Access | None] = ContextVar("CALLER", default=None)
"""The access of the request of this task; None for that of the server."""
