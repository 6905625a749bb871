"""What the environment decides. Only the command line and the service build these."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from msmarco_qdrant.catalog import DEFAULT_MODEL
from msmarco_qdrant.corpus import MAX_LINE_BYTES
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest import WINDOW

_PREFIX = "MSMARCO_QDRANT_"


class Settings(BaseSettings):
    """Defaults of the command line, each from `MSMARCO_QDRANT_<NAME>` or a file `.env`.

    Attributes:
        store: A directory for Qdrant Edge.
        collection: The collection's name.
        model: The model of a new collection.
        max_line_bytes: A longer line of a source becomes a reject.
        window: Passages that are sorted by length, and flushed, together.
        data: Where the tests and benchmarks find real MS MARCO data.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_file=".env", extra="ignore", frozen=True
    )

    store: str = "./qdrant_data"
    collection: str = "msmarco"
    model: str = DEFAULT_MODEL
    max_line_bytes: int = Field(default=MAX_LINE_BYTES, ge=1024)
    window: int = Field(default=WINDOW, ge=1)
    data: Path | None = None


def load_settings(given: Mapping[str, str]) -> Settings:
    """The environment's settings with the given values on top.

    Raises:
        UsageError: Naming each variable whose value cannot be used.
    """
    try:
        return Settings.model_validate(Settings().model_dump() | dict(given))
    except UnicodeDecodeError as exc:
        raise UsageError(f"the file .env in {Path.cwd()} is not UTF-8: {exc}") from exc
    except ValidationError as exc:
        problems = "; ".join(
            f"{_PREFIX}{str(error['loc'][0]).upper()}: {error['msg']}" for error in exc.errors()
        )
        raise UsageError(f"a setting is wrong: {problems}") from exc
