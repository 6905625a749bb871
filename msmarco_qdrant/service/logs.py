"""The log as one JSON object per line, for log collectors.

Messages of libraries, warnings and errors of threads go the same way. The app logs requests itself,
so uvicorn's access log is off.
"""

from __future__ import annotations

import json
import logging
import logging.config
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msmarco_qdrant.core.escape import escape_json_controls

_HIDDEN: Final = "***"
_SHORTEST: Final = 8  # shorter words are in too much other text
_CHATTY: Final = ("hpack", "httpcore", "httpx", "uvicorn.error")  # a line per request or connection
_log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, and its `fields`.

    Args:
        secrets: Words to hide in every value, if they have 8 characters or more: words such as
            "info" are in every line.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._secrets = [secret for secret in secrets if len(secret) >= _SHORTEST]

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return escape_json_controls(json.dumps(self._hide_secrets(line), default=str))

    def _hide_secrets(self, value: Any) -> Any:
        """Return a value without secrets; keys, which the code defines, stay."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {key: self._hide_secrets(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._hide_secrets(inner) for inner in value]
        text = str(value)
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text


def configure_logs(level: str, secrets: Sequence[str] = ()) -> None:
    """Make this process log JSON to stderr; a command calls it once.

    Args:
        level: The lowest level shown: "debug", "info", "warning" or "error".
        secrets: Words to hide, such as tokens and API keys.
    """
    louder = "DEBUG" if level.upper() == "DEBUG" else "WARNING"
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter, "secrets": list(secrets)}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            **{name: {"level": louder} for name in _CHATTY},
            "uvicorn": {"handlers": [], "propagate": True},
            "uvicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
        },
    }
    logging.config.dictConfig(config)
    logging.captureWarnings(True)
    threading.excepthook = _log_thread_error


def _log_thread_error(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "unknown"
    cause = ended.exc_value
    _log.error(
        "the thread %s ended with an error",
        name,
        exc_info=(ended.exc_type, cause, ended.exc_traceback) if cause else None,
    )
