"""The deployment files and helpers of their tests."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from msmarco_qdrant.settings import Settings
from tests.conftest import ROOT

Service = Mapping[str, Any]

PREFIX = str(Settings.model_config["env_prefix"])
KEY = "MSMARCO_QDRANT_API_KEY"
SECRETS = {
    KEY: "0a1b2c3d",
    "MSMARCO_QDRANT_READ_TOKEN": "to-read-4e5f6071",
    "MSMARCO_QDRANT_WRITE_TOKEN": "to-write-8293a4b5",
}

COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DOCKERIGNORE = (ROOT / ".dockerignore").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
WHEEL_WORKFLOW = (ROOT / ".github" / "workflows" / "wheel.yml").read_text()
DOCS_WORKFLOW = (ROOT / ".github" / "workflows" / "docs.yml").read_text()
WORKFLOWS = WORKFLOW + WHEEL_WORKFLOW + DOCS_WORKFLOW

FINAL_STAGE = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[-1]


def load_yaml(text: str) -> Any:
    """A YAML document; PyYAML comes with the package's own dependencies."""
    return pytest.importorskip("yaml").safe_load(text)


def run_compose(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose` on the project's file with these variables and no .env."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker program: what compose makes of docker-compose.yml is not checked")
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [docker, "compose", *command],
            env=kept | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    if run("version").returncode:
        pytest.skip(
            "docker without its compose plugin: docker-compose.yml is only read, not resolved"
        )
    return run("--env-file", os.devnull, "--profile", "*", *arguments)


def variables_of_the_example() -> dict[str, str]:
    """What .env.example sets."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", ENV_EXAMPLE, flags=re.MULTILINE))


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that answers `/readyz` with a status, and all else with 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
