"""Settings from options, environment variables and a file, for the command line and the service.

An option is stronger than the environment, and the environment is stronger than a file such as
`.env`. The API key goes only to a store that was named by the same source or one that outranks it;
see `Settings.connection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from dotenv import dotenv_values
from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from msmarco_qdrant.core.collection_types import Quantization, StorageSettings
from msmarco_qdrant.core.records import WINDOW
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import CACHED_QUERIES, EncoderOptions, Precision
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection
from msmarco_qdrant.stores.connection import Transport, is_url

_PREFIX = "MSMARCO_QDRANT_"
_FORMER = {
    "MSMARCO_QDRANT_QUANTISATION": "was renamed to MSMARCO_QDRANT_QUANTIZATION",
    "MSMARCO_QDRANT_BACKEND": "was removed, since torch runs every model now: unset it",
}
"""Variables of earlier versions, which are refused, and what became of them."""
_ADDRESS = ("store", "transport", "grpc_port", "tls_ca")
"""Settings that decide which server gets the API key, and who can read it on the way."""
_COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


class Origin(IntEnum):
    """The source of a setting; a higher one outranks a lower one."""

    FILE = 1
    ENVIRONMENT = 2
    OPTION = 3
    DEFAULT = 4


class Settings(BaseSettings):
    """Defaults of the command line, each from the variable `MSMARCO_QDRANT_<NAME>`.

    `load_settings` also takes options and a file of variables.

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
        device: Device of the model, such as "cpu" or "cuda:1"; None for the best device.
        precision: Precision of the model; None for a fast one on the device.
        cached_queries: Number of query vectors that a client caches, 0 for none.
        data: Folder of real MS MARCO data, for tests and benchmarks.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
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
    device: str | None = None
    precision: Precision | None = None
    cached_queries: int = Field(default=CACHED_QUERIES, ge=0)
    data: Path | None = None
    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)
    _env_file: Path | None = PrivateAttr(default=None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the parent's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, from the strongest to the weakest; `load_settings` reads a file.

        Raises:
            UsageError: For a variable that was renamed or removed.
        """
        if isinstance(env_settings, EnvSettingsSource):
            _refuse_former(env_settings.env_vars)
        return init_settings, env_settings

    def set_origins(self, origins: Mapping[str, Origin], env_file: Path | None) -> None:
        """Record the sources of the settings that are not defaults, and the file among them."""
        self._origins.update(origins)
        self._env_file = env_file

    @property
    def connection(self) -> Connection:
        """Connection to a server, whose API key goes to no server that a weaker source named.

        The address is that of `store`, `transport`, `grpc_port` and `tls_ca`: each must come from
        the source of the key or from one that outranks it. Otherwise a file in a stranger's
        folder could name a server that gets the key of the environment.

        Raises:
            UsageError: If one of them comes from a weaker source than the key.
        """
        self._check_key_origin()
        given = {field.name: getattr(self, field.name) for field in fields(Connection)}
        api_key = self.api_key.get_secret_value() if self.api_key else None
        return Connection(**given | {"api_key": api_key})

    def _check_key_origin(self) -> None:
        """Refuse to send the API key to a server that a weaker source named."""
        key = self._origins.get("api_key")
        if key is None or not is_url(self.store):
            return
        for name in _ADDRESS:
            origin = self._origins.get(name, Origin.DEFAULT)
            if origin < key:
                names = {
                    Origin.FILE: f"the file {self._env_file}",
                    Origin.ENVIRONMENT: "the environment",
                    Origin.OPTION: "an option",
                }
                flag = f", or pass --{name}" if name in ("store", "transport") else ""
                raise UsageError(
                    "the API key must go only to a server that is named by the key's own source "
                    f"or a stronger one: the key is from {names[key]}, "
                    f"{_PREFIX}{name.upper()} from {names[origin]}. Set both in one place{flag}"
                )

    @property
    def encoder_options(self) -> EncoderOptions:
        """Options of the encoder."""
        names = ("device", "precision", "cached_queries")
        return EncoderOptions(**{name: getattr(self, name) for name in names})

    @property
    def storage(self) -> StorageSettings:
        """Storage of a new collection."""
        return StorageSettings(self.on_disk, self.quantization)


_S = TypeVar("_S", bound=Settings)


def load_settings(given: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """Load settings from a file and the environment, overridden by the given values.

    Args:
        given: Values of options by the names of settings; they outrank the environment.
        env_file: A file of variables, which the environment outranks; None for none.

    Raises:
        UsageError: If a value is invalid, with the name of each variable, or if the file cannot be
            read.
    """
    return load_as(Settings, given, env_file)


def load_as(kind: type[_S], given: Mapping[str, str], env_file: Path | None = None) -> _S:
    """Load a subclass of `Settings`; see `load_settings`."""
    sources = {
        Origin.FILE: _read_env_file(kind, env_file) if env_file else {},
        Origin.ENVIRONMENT: EnvSettingsSource(kind)(),
        Origin.OPTION: given,
    }
    values = {name: value for source in sources.values() for name, value in source.items()}
    try:
        settings = kind.model_validate(values)
    except ValidationError as exc:
        problems = "; ".join(
            f"{_PREFIX}{str(error['loc'][0]).upper()}: {error['msg']}" for error in exc.errors()
        )
        raise UsageError(f"invalid setting: {problems}") from exc
    origins = {name: origin for origin, source in sources.items() for name in source}
    settings.set_origins(origins, env_file)
    return settings


def find_env_file(folder: Path) -> Path | None:
    """Return the file `.env` of a folder that also has a compose file of this project, else None.

    A compose file is of this project if it names variables `MSMARCO_QDRANT_...`: Docker Compose
    reads `.env` next to it, so both have the same settings.
    """
    path = folder / ".env"
    if not path.is_file():
        return None
    files = (folder / name for name in _COMPOSE_FILES)
    texts = (one.read_bytes() for one in files if one.is_file())
    return path if any(_PREFIX.encode() in text for text in texts) else None


def variables_in(path: Path) -> list[str]:
    """Return the names of this package's variables that a file sets.

    Raises:
        UsageError: If the file cannot be read.
    """
    names = (name for name, value in _read_variables(path).items() if value)
    return sorted(name for name in names if name.upper().startswith(_PREFIX))


def _read_env_file(kind: type[Settings], path: Path) -> Mapping[str, str]:
    """Read the settings in a file; empty variables and those of other programs are left out.

    Raises:
        UsageError: If it cannot be read, or a value refers to another variable: a reference to the
            environment could put a secret of it into an address.
    """
    variables = {name.lower(): value for name, value in _read_variables(path).items() if value}
    _refuse_former(variables)
    found = {name: variables.get(f"{_PREFIX}{name}".lower()) for name in kind.model_fields}
    for name, value in found.items():
        if value and "${" in value:
            raise UsageError(
                f"the variables in {path} must not refer to others by ${{...}}, got a reference in "
                f"{_PREFIX}{name.upper()}: write its value"
            )
    return {name: value for name, value in found.items() if value}


def _read_variables(path: Path) -> Mapping[str, str | None]:
    try:
        with path.open(encoding="utf-8") as stream:
            return dotenv_values(stream=stream, interpolate=False)
    except UnicodeDecodeError as exc:
        raise UsageError(f"the file {path} is not UTF-8: {exc}") from None
    except OSError as exc:
        raise UsageError(f"the file {path} cannot be read: {exc.strerror}") from exc


def _refuse_former(variables: Mapping[str, str | None]) -> None:
    """Refuse a variable that was renamed or removed; names are in lower case."""
    for name, change in _FORMER.items():
        if name.lower() in variables:
            raise UsageError(f"{name} {change}")
