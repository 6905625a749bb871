"""Settings of the sidecar; options of `msmarco-qdrant serve` and the README table follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, SecretStr

from msmarco_qdrant.collection.create import check_collection_name, parse_indexes
from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens, check_binding, check_origins
from msmarco_qdrant.service.spool.quota import MAX_BATCHES, MAX_BYTES
from msmarco_qdrant.settings import Settings
from msmarco_qdrant.stores import check_creatable

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_LIMITS = Limits()


class SidecarSettings(Settings):
    """Settings of a sidecar, each from an argument, `MSMARCO_QDRANT_<NAME>` or a file `.env`."""

    host: str = Field(
        default="127.0.0.1",
        description="address to listen on; other than loopback only with both tokens",
    )
    port: int = Field(default=8080, ge=0, le=65535, description="port; 0 for any free one")
    read_token: SecretStr | None = Field(
        default=None, description="bearer token for searches and metrics; not required if empty"
    )
    write_token: SecretStr | None = Field(
        default=None, description="bearer token for writes and deletes; not required if empty"
    )
    tenant_tokens: SecretStr | None = Field(
        default=None,
        description="bearer tokens that read one tenant's passages: `TENANT=TOKEN`, with commas "
        "between several; only with both tokens",
    )
    spool: Path = Field(
        default=Path("qdrant_spool"),
        description="directory of accepted batches, on a persistent disk",
    )
    inbox: Path | None = Field(
        default=None,
        description="directory of files to ingest: `.tsv`, `.csv`, `.jsonl`, `.ndjson`, each also "
        "compressed (`.gz`, `.bz2`, `.xz`, `.zst`), `.parquet`, `.arrow`, `.feather`",
    )
    reranker: str | None = Field(
        default=None, description='cross-encoder for searches with `"rerank": true`'
    )
    cors_origins: str | None = Field(
        default=None,
        description="sites whose pages may use the API in a browser: `https://app.example.com`, "
        "with commas between several; `*` for all, only with both tokens",
    )
    search_collections: str | None = Field(
        default=None,
        description="collections of the store, of the same model, that a search may name in "
        "`collections`, besides the sidecar's own: with commas between several",
    )
    mcp: bool = Field(
        default=False, description="serve assistants at `/mcp`, with tools that read (extra `mcp`)"
    )
    mcp_write: bool = Field(
        default=False, description="with MCP: offer the tools that add and delete passages, too"
    )
    index: str | None = Field(
        default=None,
        description="payload indexes of the collection: `FIELD=KIND`, with commas between "
        "several; missing ones are added at the start",
    )
    spool_bytes: int = Field(
        default=MAX_BYTES, ge=1, description="most bytes of unfinished batches; above it 429"
    )
    spool_batches: int = Field(
        default=MAX_BATCHES, ge=1, description="most unfinished batches; above it 429"
    )
    spool_total_bytes: int | None = Field(
        default=None,
        ge=1,
        description="most bytes of all batches in the spool, with ended ones; above it the oldest "
        "done ones are removed, then the oldest failed ones; default: twice SPOOL_BYTES",
    )
    body_bytes: int = Field(
        default=_LIMITS.body_bytes,
        ge=1024,
        description="most bytes of a batch, as sent and decompressed; above it 413",
    )
    searches: int = Field(
        default=_LIMITS.searches, ge=1, description="most concurrent searches; above it 503"
    )
    search_s: float = Field(
        default=_LIMITS.search_s,
        gt=0,
        allow_inf_nan=False,
        description="time limit of a search in seconds; after it 504",
    )
    grace_s: float = Field(
        default=15.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds to finish the current batch after SIGTERM",
    )
    log_level: LogLevel = Field(
        default="info",
        description="`debug`, `info`, `warning` or `error`; the log is one JSON object per "
        "line on standard error",
    )

    @property
    def secrets(self) -> list[str]:
        """The API key and the tokens that are set."""
        found = (self.api_key, self.read_token, self.write_token)
        shown = [secret.get_secret_value() for secret in found if secret]
        return [*shown, *(token for _, token in _parse_tokens(self.tenant_tokens))]

    @property
    def tokens(self) -> Tokens:
        """The bearer tokens.

        Raises:
            UsageError: For a token that is too short, or two of one tenant; see `Tokens`.
        """
        secrets = (self.read_token, self.write_token)
        read, write = (secret.get_secret_value() if secret else None for secret in secrets)
        pairs = _parse_tokens(self.tenant_tokens)
        tenants = dict(pairs)
        if len(tenants) < len(pairs):
            raise UsageError(
                f"tenant_tokens must have one token per tenant, got {len(pairs)} tokens for "
                f"{len(tenants)} tenants"
            )
        return Tokens(read, write, tenants)

    @property
    def payload_indexes(self) -> Mapping[str, PayloadIndex]:
        """The indexes of `index`, each field with its kind.

        Raises:
            UsageError: For another format; see `parse_indexes`.
        """
        return parse_indexes(self.index.split(",") if self.index else (), "--index")

    @property
    def origins(self) -> Sequence[str]:
        """The origins of `cors_origins`."""
        given = (self.cors_origins or "").split(",")
        return [origin for part in given if (origin := part.strip())]

    @property
    def permitted_collections(self) -> Sequence[str]:
        """The names of `search_collections`."""
        given = (self.search_collections or "").split(",")
        return [name for part in given if (name := part.strip())]

    @property
    def limits(self) -> Limits:
        """The limits of requests."""
        return Limits(body_bytes=self.body_bytes, searches=self.searches, search_s=self.search_s)

    def check(self) -> None:
        """Check the settings that depend on each other or on the disk.

        Raises:
            UsageError: For a port that others can reach without both tokens, an invalid origin,
                collection name or index, a store in memory, or an inbox within the spool or around
                it; or for tools that write without a server for assistants.
            StoreError: If the store's directory cannot be used.
        """
        if self.mcp_write and not self.mcp:
            raise UsageError("mcp_write must be set together with mcp, got mcp_write alone")
        check_creatable(self.store, self.connection)
        check_binding(self.host, self.tokens)
        check_origins(self.origins, self.tokens)
        for name in (self.collection, *self.permitted_collections):
            check_collection_name(name)
        _ = self.payload_indexes
        if self.inbox is not None and _overlap(self.inbox, self.spool):
            raise UsageError(
                f"inbox and spool must be separate directories, neither within the other, "
                f"got inbox {self.inbox} and spool {self.spool}"
            )


def _overlap(first: Path, second: Path) -> bool:
    first, second = (path.expanduser().resolve() for path in (first, second))
    return first.is_relative_to(second) or second.is_relative_to(first)


def _parse_tokens(given: SecretStr | None) -> list[tuple[str, str]]:
    """Return tenant and token of each part of `TENANT=TOKEN,...`; "" for a part without."""
    words = given.get_secret_value().split(",") if given else []
    parts = [word.strip().partition("=") for word in words if word.strip()]
    return [(tenant, token) for tenant, _, token in parts]
