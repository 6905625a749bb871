"""What the environment decides for the sidecar, beside what it decides for every command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, SecretStr

from msmarco_qdrant.service.interfaces import Limits, Tokens
from msmarco_qdrant.service.options import GRACE_S, HOST, PORT, SidecarOptions
from msmarco_qdrant.service.spool.spool import MAX_BATCHES, MAX_BYTES
from msmarco_qdrant.settings import Settings, load_as

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_LIMITS = Limits()


class SidecarSettings(Settings):
    """Settings of `msmarco-qdrant serve`, each from `MSMARCO_QDRANT_<NAME>` or a file `.env`.

    Attributes:
        host: Name or address to listen on.
        port: Port to listen on; 0 for any that is free.
        read_token: The bearer token that allows to search; never shown.
        write_token: The bearer token that allows to bring and delete passages; never shown.
        spool: The directory of accepted batches.
        inbox: A directory whose files are taken in.
        reranker: A cross-encoder, for searches that ask for it.
        spool_bytes: Most bytes of accepted batches that are not written yet.
        spool_batches: Most such batches.
        body_bytes: Most bytes of a batch that is sent.
        searches: Most searches under way at once.
        search_s: Seconds in which a search has to be answered.
        grace_s: Seconds in which, at the end, the batch in hand may still be finished.
        log_level: The least that is told in the log.
    """

    host: str = HOST
    port: int = Field(default=PORT, ge=0, le=65535)
    read_token: SecretStr | None = None
    write_token: SecretStr | None = None
    spool: Path = Path("qdrant_spool")
    inbox: Path | None = None
    reranker: str | None = None
    spool_bytes: int = Field(default=MAX_BYTES, ge=1)
    spool_batches: int = Field(default=MAX_BATCHES, ge=1)
    body_bytes: int = Field(default=_LIMITS.body_bytes, ge=1024)
    searches: int = Field(default=_LIMITS.searches, ge=1)
    search_s: float = Field(default=_LIMITS.search_s, gt=0, allow_inf_nan=False)
    grace_s: float = Field(default=GRACE_S, ge=0, allow_inf_nan=False)
    log_level: LogLevel = "info"

    @property
    def secrets(self) -> list[str]:
        """What nobody may be shown."""
        found = (self.api_key, self.read_token, self.write_token)
        return [secret.get_secret_value() for secret in found if secret]

    @property
    def options(self) -> SidecarOptions:
        """What the sidecar is told.

        Raises:
            UsageError: For what cannot be, or must not; see `SidecarOptions`.
            StoreError: If the store's directory cannot be made or written, or holds something else.
        """
        return SidecarOptions(
            store=self.store,
            spool=self.spool,
            collection=self.collection,
            model=self.model,
            reranker=self.reranker,
            inbox=self.inbox,
            host=self.host,
            port=self.port,
            tokens=Tokens(_revealed(self.read_token), _revealed(self.write_token)),
            limits=Limits(
                body_bytes=self.body_bytes, searches=self.searches, search_s=self.search_s
            ),
            spool_bytes=self.spool_bytes,
            spool_batches=self.spool_batches,
            grace_s=self.grace_s,
            connection=self.connection,
            encoder_options=self.encoder_options,
            storage=self.storage,
        )


def load_sidecar_settings(given: Mapping[str, str]) -> SidecarSettings:
    """The environment's settings with the given values on top.

    Raises:
        UsageError: Naming each variable whose value cannot be used.
    """
    return load_as(SidecarSettings, given)


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
