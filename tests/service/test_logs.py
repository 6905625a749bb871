"""The log: one JSON object a line, whoever logs, and no secret in it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from msmarco_qdrant.service.logs import JsonFormatter

_PROGRAM = """
import logging, threading, warnings
from msmarco_qdrant.service.logs import configure_logs
configure_logs({level!r}, ["sesame\\\\open"])
log = logging.getLogger("msmarco_qdrant.service.x")
log.info("one\\nline of %s", "sesame\\\\open", extra={{"fields": {{"id": 7}}}})
log.debug("not told")
try:
    raise ValueError("a cause with sesame\\\\open")
except ValueError:
    log.exception("failed")
logging.getLogger("uvicorn.error").error("of uvicorn")
logging.getLogger("uvicorn.error").info("started")
logging.getLogger("uvicorn.access").info("GET /private")
warnings.warn("a warning")
def fail():
    raise KeyError("in a thread")
thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
"""


def _logged(level: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(level=level)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == done.stdout
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_every_line_is_an_object() -> None:
    """The package's own, uvicorn's, a warning, the end of a thread; a trace is one field."""
    lines = _logged("info")
    assert [
        ("info", "msmarco_qdrant.service.x"),
        ("error", "msmarco_qdrant.service.x"),
        ("error", "uvicorn.error"),
        ("warning", "py.warnings"),
        ("error", "msmarco_qdrant.service.logs"),
    ] == [(line["level"], line["logger"]) for line in lines]
    assert (7, "one\nline of ***") == (lines[0]["id"], lines[0]["message"])
    assert "ValueError: a cause with ***" in str(lines[1]["exception"])
    assert "worker" in str(lines[4]["message"])
    assert "KeyError: 'in a thread'" in str(lines[4]["exception"])


def test_a_level_holds_for_all() -> None:
    """Debug tells more, error less."""
    assert {"error"} == {line["level"] for line in _logged("error")}
    assert "not told" in [line["message"] for line in _logged("DEBUG")]


def _line(secrets: list[str], **fields: object) -> str:
    record = logging.LogRecord("x", logging.INFO, "", 0, "it is %s", ("sesame-open",), None)
    record.fields = fields
    return JsonFormatter(secrets).format(record)


def test_a_secret_is_hidden_wherever_a_value_holds_it() -> None:
    """In lists, in objects, in what is no string, and behind what JSON escapes."""
    line = _line(
        ["sesame-open", 'pass"wörd'],
        urls=["http://sesame-open@host"],
        inner={"key": 'pass"wörd', "error": ValueError("sesame-open")},
        counts=(1, None, True),
    )
    told = json.loads(line)
    assert "it is ***" == told["message"]
    assert ["http://***@host"] == told["urls"]
    assert {"key": "***", "error": "***"} == told["inner"]
    assert [1, None, True] == told["counts"]


def test_a_secret_never_breaks_a_line() -> None:
    """Names of fields stay, whatever the secret; one of few characters hides nothing."""
    told = json.loads(_line(["info", "it", "instance"], instance="an instance"))
    assert ("info", "it is sesame-open") == (told["level"], told["message"])
    assert "an ***" == told["instance"]
