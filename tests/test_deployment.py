"""The deployment files keep what they promise: compose, image, CI and the example .env.

Compose's file is read twice: as it is written, and as `docker compose config` resolves it where
that program is installed (no engine is needed).
"""

from __future__ import annotations

import http.server
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from msmarco_qdrant.cli import cli
from msmarco_qdrant.settings import Settings

from .conftest import ROOT

Service = Mapping[str, Any]

PREFIX = str(Settings.model_config["env_prefix"])
KEY = "MSMARCO_QDRANT_API_KEY"
KEY_OF_THE_TEST = "0a1b2c3d"

COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DOCKERIGNORE = (ROOT / ".dockerignore").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()

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


@pytest.fixture(scope="module", params=["as written", "as compose resolves it"])
def services(request: pytest.FixtureRequest) -> Mapping[str, Service]:
    """Every service of docker-compose.yml, those of profiles too."""
    if request.param == "as written":
        loaded = load_yaml(COMPOSE)
    else:
        done = run_compose("config", "--format", "json", **{KEY: KEY_OF_THE_TEST})
        assert 0 == done.returncode, done.stderr
        loaded = json.loads(done.stdout)
    found: Mapping[str, Service] = loaded["services"]
    assert {"qdrant", "ingest"} <= set(found)
    return found


# ---- compose -----------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, {KEY: ""}])
def test_compose_refuses_to_start_without_a_key(environment: dict[str, str]) -> None:
    """Neither without the variable nor with an empty one, and it is named."""
    done = run_compose("config", "--quiet", **environment)
    assert 0 != done.returncode
    assert KEY in done.stderr


def test_services_are_hardened(services: Mapping[str, Service]) -> None:
    """No root, no writable root filesystem, no capability, no way to gain one, limits."""
    for name, service in services.items():
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(service["user"])), name
        assert service["read_only"] is True, name
        assert ["ALL"] == service["cap_drop"], name
        assert ["no-new-privileges:true"] == service["security_opt"], name
        assert all(service[limit] for limit in ("mem_limit", "cpus", "pids_limit")), name
        assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service), name


def test_ports_are_published_on_this_machine_only(services: Mapping[str, Service]) -> None:
    """REST and gRPC of Qdrant, and nothing else."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert {("127.0.0.1", 6333, "6333"), ("127.0.0.1", 6334, "6334")} == {
        (port["host_ip"], port["target"], port["published"]) for port in ports
    }


def test_of_the_host_only_the_passages_are_mounted_and_read_only(
    services: Mapping[str, Service],
) -> None:
    """Everything that is written lies in a named volume."""
    mounts = [mount for service in services.values() for mount in service["volumes"]]
    binds = [mount for mount in mounts if mount["type"] != "volume"]
    assert ["/passages"] == [mount["target"] for mount in binds]
    assert binds[0]["read_only"] is True
    storage = {mount["target"] for mount in services["qdrant"]["volumes"]}
    assert {"/qdrant/storage", "/qdrant/snapshots"} == storage


def test_qdrant_asks_for_the_key_and_tells_nobody(services: Mapping[str, Service]) -> None:
    """The key comes from the variable, is given to both sides, and telemetry is off."""
    expected = {KEY_OF_THE_TEST, "${MSMARCO_QDRANT_API_KEY:?set it in .env}"}
    qdrant = services["qdrant"]["environment"]
    assert qdrant["QDRANT__SERVICE__API_KEY"] in expected
    assert qdrant["QDRANT__SERVICE__API_KEY"] == services["ingest"]["environment"][KEY]
    assert "true" == qdrant["QDRANT__TELEMETRY_DISABLED"]


def test_qdrant_is_restarted_and_ingest_waits_for_it(services: Mapping[str, Service]) -> None:
    """The server comes back by itself; a run of ingest ends, and starts when the server answers."""
    assert "unless-stopped" == services["qdrant"]["restart"]
    assert "no" == services["ingest"]["restart"]
    assert ["ingest"] == services["ingest"]["profiles"]
    assert "service_healthy" == services["ingest"]["depends_on"]["qdrant"]["condition"]


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


def test_the_healthcheck_tells_a_ready_server_from_others(services: Mapping[str, Service]) -> None:
    """Its own command, run against a server that is ready, one that is not, and none."""
    kind, program, *arguments = services["qdrant"]["healthcheck"]["test"]
    assert ("CMD", "bash") == (kind, program)
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash: the healthcheck is not run")

    def status(port: int) -> int:
        command = [argument.replace("$$", "$") for argument in arguments]
        assert any("/6333 " in argument for argument in command)
        command = [argument.replace("/6333 ", f"/{port} ") for argument in command]
        return subprocess.run([bash, *command], check=False, capture_output=True).returncode

    with answering(200) as port:
        assert 0 == status(port)
    assert 0 != status(port)
    with answering(503) as port:
        assert 0 != status(port)


def test_the_default_command_is_one_the_program_takes(services: Mapping[str, Service]) -> None:
    """With its options, reading and writing where something is mounted."""
    name, *arguments = services["ingest"]["command"]
    with cli.commands[name].make_context(name, list(arguments)) as context:
        assert ("/passages/collection.tsv",) == context.params["sources"]
    mounts = {mount["target"] for mount in services["ingest"]["volumes"]}
    assert {"/passages", "/work"} <= mounts


# ---- versions ----------------------------------------------------------------------------------


def test_one_version_of_qdrant_near_the_client_s() -> None:
    """Compose and CI pin the same image, within a minor version of the client."""
    images = set(re.findall(r"^ +image: (\S+)$", COMPOSE + WORKFLOW, flags=re.MULTILINE))
    assert 1 == len(images), images
    version = re.fullmatch(r"qdrant/qdrant:v(\d+)\.(\d+)\.\d+-unprivileged", images.pop())
    assert version is not None
    major, minor = importlib.metadata.version("qdrant-client").split(".")[:2]
    assert major == version[1]
    assert abs(int(minor) - int(version[2])) <= 1


# ---- settings ----------------------------------------------------------------------------------


def variables_of_the_example() -> dict[str, str]:
    """What .env.example sets."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", ENV_EXAMPLE, flags=re.MULTILINE))


def test_every_variable_is_a_setting() -> None:
    """What starts with the prefix, anywhere in these files, is read by the program."""
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", COMPOSE + ENV_EXAMPLE + WORKFLOW + DOCKERFILE))
    assert KEY in named
    assert {PREFIX + name.upper() for name in Settings.model_fields} >= named


def test_the_example_explains_every_variable_that_compose_reads() -> None:
    """Each below a comment of its own block, with compose's default; others are settings."""
    example = variables_of_the_example()
    read = dict(re.findall(r"\$\{([A-Z_]+)(?::[-?])?([^}]*)\}", COMPOSE))
    assert set(read) <= set(example)
    assert all(name in read or name.startswith(PREFIX) for name in example)
    defaults = {name: default for name, default in read.items() if name != KEY}
    assert defaults == {name: example[name] for name in defaults}
    for block in ENV_EXAMPLE.strip().split("\n\n"):
        assert block.startswith("# "), block


def test_defaults_are_the_program_s() -> None:
    """A collection and a model that nobody named are those of the command line."""
    example = variables_of_the_example()
    for name in ("collection", "model"):
        assert Settings.model_fields[name].default == example[PREFIX + name.upper()]


@pytest.mark.parametrize("text", [COMPOSE, DOCKERFILE, ENV_EXAMPLE, WORKFLOW])
def test_no_file_holds_a_secret(text: str) -> None:
    """What looks like one is empty or comes from a variable."""
    assignment = r"(?im)^\W*(\w*(?:key|token|secret|passw)\w*) *[:=] *(.*)$"
    for name, value in re.findall(assignment, text):
        assert not value or "${" in value, name


# ---- the image ---------------------------------------------------------------------------------


def test_the_image_runs_as_the_user_of_compose(services: Mapping[str, Service]) -> None:
    """By number, so that an orchestrator can tell that it is not root."""
    users = re.findall(r"^USER (.*)$", FINAL_STAGE, flags=re.MULTILINE)
    assert [services["ingest"]["user"]] == users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[0])


def test_the_image_writes_to_the_mounts_of_compose(services: Mapping[str, Service]) -> None:
    """Models and work lie on volumes, home on /tmp: the rest may be read-only."""
    targets = {mount["target"] for mount in services["ingest"]["volumes"]}
    volumes = re.search(r"^VOLUME (.*)$", FINAL_STAGE, flags=re.MULTILINE)
    assert volumes is not None
    assert {*json.loads(volumes[1]), "/passages"} == targets
    for setting in ("HF_HOME=/models", "HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1", "WORKDIR /work"):
        assert re.search(rf"\b{setting}\b", FINAL_STAGE), setting
    places = [entry.split(":")[0] for entry in services["ingest"]["tmpfs"]]
    assert ["/tmp"] == places  # noqa: S108  # in the container


def test_the_image_starts_the_program_and_holds_no_build_tools() -> None:
    """Only the finished environment gets into the last stage."""
    assert 'ENTRYPOINT ["msmarco-qdrant"]' in FINAL_STAGE
    copied = re.findall(r"^COPY (.*)$", FINAL_STAGE, flags=re.MULTILINE)
    assert ["--from=installed /opt/venv /opt/venv"] == copied
    assert not re.search(r"\b(apt-get|pip|gcc|build-essential)\b", FINAL_STAGE)


def test_stages_start_from_one_pinned_python() -> None:
    """A full version that the package supports."""
    version = re.search(r"^ARG PYTHON=(\d+\.\d+)\.\d+-slim-\w+$", DOCKERFILE, flags=re.MULTILINE)
    assert version is not None
    classifiers = importlib.metadata.metadata("msmarco-qdrant").get_all("Classifier") or []
    assert f"Programming Language :: Python :: {version[1]}" in classifiers
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert {"python:${PYTHON}"} == set(bases)


def test_default_extras_are_the_package_s() -> None:
    """In the image and in compose, the same."""
    (default,) = re.findall(r"^ARG EXTRAS=(.*)$", DOCKERFILE, flags=re.MULTILINE)
    assert variables_of_the_example()["EXTRAS"] == default
    known = importlib.metadata.metadata("msmarco-qdrant").get_all("Provides-Extra") or []
    assert {"offline", *default.split(",")} <= set(known)


def test_the_builder_is_sent_what_it_copies_and_no_more() -> None:
    """Everything is left out but the sources of COPY; so a .env or data cannot get in."""
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    lines = [line for line in DOCKERIGNORE.splitlines() if line and not line.startswith("#")]
    assert "*" == lines[0]
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    for source in copied:
        assert (ROOT / source).exists(), source


# ---- the workflow ------------------------------------------------------------------------------


def test_the_workflow_has_few_permissions_and_an_end() -> None:
    """It may read the sources; a job that hangs is stopped."""
    workflow = load_yaml(WORKFLOW)
    assert {"contents": "read"} == workflow["permissions"]
    assert workflow["concurrency"]["group"]
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 60, name
        assert "permissions" not in job, name


def test_actions_are_pinned_to_a_full_version() -> None:
    """A moved major tag changes nothing here."""
    actions = re.findall(r"uses: (\S+)", WORKFLOW)
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action), action


def test_make_has_the_targets_that_the_workflow_names() -> None:
    """A job that cannot start is found here, not there."""
    makefile = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    for target in re.findall(r"\bmake ([\w./-]+)", WORKFLOW):
        assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target


def test_the_workflow_tests_every_python_of_the_package() -> None:
    """Those that its classifiers name."""
    classifiers = importlib.metadata.metadata("msmarco-qdrant").get_all("Classifier") or []
    named = re.findall(r"Python :: (\d\.\d+)", "\n".join(classifiers))
    assert named == load_yaml(WORKFLOW)["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_the_workflow_gives_server_and_suite_one_key() -> None:
    """Made for the run, as no secret is needed for a server that lives for minutes."""
    job = load_yaml(WORKFLOW)["jobs"]["server"]
    assert (
        job["env"]["QDRANT_API_KEY"]
        == (job["services"]["qdrant"]["env"]["QDRANT__SERVICE__API_KEY"])
    )
    assert {"run": "make contract"} in job["steps"]
