"""Settings from environment variables and `.env`, for the command line and the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from msmarco_qdrant.core.records import WINDOW, Quantization, StorageSettings
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import CACHED_QUERIES, BackendName, EncoderOptions, Precision
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection
from msmarco_qdrant.stores.connection import Transport

_PREFIX = "MSMARCO_QDRANT_"
_RENAMED = {"MSMARCO_QDRANT_QUANTISATION": "MSMARCO_QDRANT_QUANTIZATION"}
"""Renamed variables, which are refused, with their new names."""


class Settings(BaseSettings):
    """Defaults of the command line, each from `MSMARCO_QDRANT_<NAME>` or a file `.env`.

    Attributes:
        store: A directory for Qdrant Edge, or the URL of a Qdrant server.
        collection: The collection's name.
        model: The model of a new collection.
        max_line_bytes: A longer line of a source becomes a reject.
        window: Passages to sort by length and flush together.
        api_key: API key of a server; never in the URL, and never printed.
        transport: Protocol of a server: "grpc", "rest", or "auto" for gRPC where it answers.
        grpc_port: gRPC port of a server with an `http(s)://` URL; None for the one that its port
            implies.
        timeout_s: Seconds until a request to a server times out.
        retry_s: Seconds during which a request with a transient error is retried.
        tls_ca: PEM file of certificates to trust instead of the system's.
        batch_points: Most points of one request to a server.
        batch_bytes: Most bytes of one request to a server.
        in_flight: Most concurrent requests to a server.
        on_disk: Read the vectors of a new collection from disk on demand.
        quantization: Quantization of a new collection: "int8", "turbo4" or "none".
        backend: Runtime of the model: "torch", "openvino", or "auto".
        device: Device of the model, such as "cpu" or "cuda:1"; None for the best device.
        precision: Precision of the model; None for a fast one on the device.
        cached_queries: Number of query vectors that a client caches, 0 for none.
        data: Folder of real MS MARCO data, for tests and benchmarks.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        env_ignore_empty=True,  # .env.example has empty variables
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # the input may be the API key
    )

    store: str = "./qdrant_data"
    collection: str = "msmarco"
    model: str = DEFAULT_MODEL
    max_line_bytes: int = Field(default=MAX_LINE_BYTES, ge=1024)
    window: int = Field(default=WINDOW, ge=1)
    api_key: SecretStr | None = None
    transport: Transport = DEFAULT_CONNECTION.transport
    grpc_port: int | None = Field(default=DEFAULT_CONNECTION.grpc_port, ge=1, le=65535)
    timeout_s: float = Field(default=DEFAULT_CONNECTION.timeout_s, gt=0, allow_inf_nan=False)
    retry_s: float = Field(default=DEFAULT_CONNECTION.retry_s, ge=0)
    tls_ca: Path | None = None
    batch_points: int = Field(default=DEFAULT_CONNECTION.batch_points, ge=1)
    batch_bytes: int = Field(default=DEFAULT_CONNECTION.batch_bytes, ge=1024)
    in_flight: int = Field(default=DEFAULT_CONNECTION.in_flight, ge=1, le=64)
    on_disk: bool = StorageSettings().on_disk
    quantization: Quantization = StorageSettings().quantization
    backend: BackendName = "auto"
    device: str | None = None
    precision: Precision | None = None
    cached_queries: int = Field(default=CACHED_QUERIES, ge=0)
    data: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the parent's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, from the strongest to the weakest.

        Raises:
            UsageError: For a variable that was renamed.
        """
        for source in (env_settings, dotenv_settings):
            for old, new in _RENAMED.items():
                if isinstance(source, EnvSettingsSource) and old.lower() in source.env_vars:
                    raise UsageError(f"{old} was renamed to {new}")
        return init_settings, env_settings, dotenv_settings

    @property
    def connection(self) -> Connection:
        """Connection to a server."""
        given = {field.name: getattr(self, field.name) for field in fields(Connection)}
        api_key = self.api_key.get_secret_value() if self.api_key else None
        return Connection(**given | {"api_key": api_key})

    @property
    def encoder_options(self) -> EncoderOptions:
        """Options of the encoder."""
        names = ("backend", "device", "precision", "cached_queries")
        return EncoderOptions(**{name: getattr(self, name) for name in names})

    @property
    def storage(self) -> StorageSettings:
        """Storage of a new collection."""
        return StorageSettings(self.on_disk, self.quantization)


_S = TypeVar("_S", bound=Settings)


def load_settings(given: Mapping[str, str]) -> Settings:
    """Load settings from the environment, overridden by the given values.

    Raises:
        UsageError: If a value is invalid; the message names each variable.
    """
    return load_as(Settings, given)


def load_as(kind: type[_S], given: Mapping[str, str]) -> _S:
    """Load a subclass of `Settings`; see `load_settings`."""
    try:
        return kind.model_validate(kind().model_dump() | dict(given))
    except UnicodeDecodeError as exc:
        raise UsageError(f"the file .env in {Path.cwd()} is not UTF-8: {exc}") from None
    except ValidationError as exc:
        problems = "; ".join(
            f"{_PREFIX}{str(error['loc'][0]).upper()}: {error['msg']}" for error in exc.errors()
        )
        raise UsageError(f"invalid setting: {problems}") from exc
