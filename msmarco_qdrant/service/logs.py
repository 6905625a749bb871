"""The log as one JSON object a line, for whatever collects it.

What libraries say goes the same way, and so do warnings and the ends of threads. Requests are told
of by the app itself, so uvicorn's own lines about them are off.
"""

from __future__ import annotations

import json
import logging
import logging.config
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

_HIDDEN: Final = "***"
_SHORTEST: Final = 8  # a shorter word is in too much that is no secret
_CHATTY: Final = ("hpack", "httpcore", "httpx", "uvicorn.error")  # of each request or connection
_log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Makes a record one line of JSON: time, level, logger, message, and its `fields`.

    Args:
        secrets: Words that no value of a line shows, whoever logs it, if they have 8 characters
            or more: words such as "info" are in every line.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._secrets = [secret for secret in secrets if len(secret) >= _SHORTEST]

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            told["stack"] = self.formatStack(record.stack_info)
        return json.dumps(self._masked(told), ensure_ascii=True, default=str)

    def _masked(self, told: Any) -> Any:
        """The same without secrets; keys, which the code names, stay."""
        if told is None or isinstance(told, bool | int | float):
            return told
        if isinstance(told, Mapping):
            return {key: self._masked(value) for key, value in told.items()}
        if isinstance(told, list | tuple):
            return [self._masked(value) for value in told]
        told = str(told)
        for secret in self._secrets:
            told = told.replace(secret, _HIDDEN)
        return told


def log_config(level: str, secrets: Sequence[str] = ()) -> Mapping[str, Any]:
    """What `logging.config.dictConfig` takes: everything to stderr, as JSON.

    Args:
        level: From which level on: "debug", "info", "warning" or "error".
        secrets: Words that no line shows.
    """
    louder = "DEBUG" if level.upper() == "DEBUG" else "WARNING"
    return {
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


def configure_logs(level: str, secrets: Sequence[str] = ()) -> None:
    """Let this process log JSON to stderr; for a command, once.

    Args:
        level: From which level on.
        secrets: Words that no line shows, such as tokens and API keys.
    """
    logging.config.dictConfig(dict(log_config(level, secrets)))
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "unknown"
    cause = ended.exc_value
    _log.error(
        "the thread %s has ended with an error",
        name,
        exc_info=(ended.exc_type, cause, ended.exc_traceback) if cause else None,
    )
