"""Compose's file and the example .env keep what they promise.

Compose's file is read twice: as it is written, and as `docker compose config` resolves it where
that program is installed (no engine is needed).
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping

import pytest

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.http.limits import Limits
from msmarco_qdrant.service.http.tokens import Tokens, check_binding
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.worker.worker import WorkerSettings
from msmarco_qdrant.settings import Settings
from tests.deploy.files import (
    COMPOSE,
    DOCKERFILE,
    ENV_EXAMPLE,
    KEY,
    PREFIX,
    SECRETS,
    WORKFLOW,
    Service,
    answering,
    load_yaml,
    run_compose,
    variables_of_the_example,
)

NODES = ("node-1", "node-2", "node-3")


@pytest.fixture(scope="module", params=["as written", "as compose resolves it"])
def services(request: pytest.FixtureRequest) -> Mapping[str, Service]:
    """Every service of docker-compose.yml, those of profiles too."""
    if request.param == "as written":
        loaded = load_yaml(COMPOSE)
    else:
        done = run_compose("config", "--format", "json", **SECRETS)
        assert 0 == done.returncode, done.stderr
        loaded = json.loads(done.stdout)
    found: Mapping[str, Service] = loaded["services"]
    assert {"qdrant", "ingest", "sidecar", *NODES} == set(found)
    return found


def test_three_nodes_make_a_cluster(services: Mapping[str, Service]) -> None:
    """Only if they are asked for; each has its own disk, and joins the first."""
    volumes = set()
    for name in NODES:
        node, alone = services[name], services["qdrant"]
        assert ["cluster"] == node["profiles"]
        assert "true" == node["environment"]["QDRANT__CLUSTER__ENABLED"]
        assert {*alone["environment"]} < {*node["environment"]}
        assert f"http://{name}:6335" == node["command"][-1]
        joins = "http://node-1:6335" in node["command"][:-1]
        assert joins == (name != "node-1") == ("node-1" in node.get("depends_on", {}))
        assert (alone["image"], False) == (node["image"], "ports" in node)
        volumes |= {volume["source"] for volume in node["volumes"]}
    assert 6 == len(volumes - {volume["source"] for volume in services["qdrant"]["volumes"]})


# ---- compose -----------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("secret", SECRETS)
def test_compose_refuses_to_start_without_a_secret(secret: str, empty: bool) -> None:
    """Neither without the variable nor with an empty one, and it is named."""
    given = {name: value for name, value in SECRETS.items() if name != secret}
    done = run_compose("config", "--quiet", **(given | {secret: ""} if empty else given))
    assert 0 != done.returncode
    assert secret in done.stderr


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
    """REST and gRPC of Qdrant, the sidecar, and nothing else."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert {("127.0.0.1", port, str(port)) for port in (6333, 6334, 8080)} == {
        (port["host_ip"], port["target"], port["published"]) for port in ports
    }


@pytest.mark.slow
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


# ---- the sidecar -------------------------------------------------------------------------------


def seconds(duration: str) -> int:
    """A duration as compose writes it, such as 1m30s."""
    parts = re.findall(r"(\d+)([hms])", duration)
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


def test_the_sidecar_s_command_is_one_the_program_takes(services: Mapping[str, Service]) -> None:
    """Everything else comes from the environment."""
    name, *arguments = services["sidecar"]["command"]
    with cli.commands[name].make_context(name, list(arguments)) as context:
        assert {None, ()} == set(context.params.values())  # `--index` may be repeated


def test_the_sidecar_is_reached_with_both_tokens_only(services: Mapping[str, Service]) -> None:
    """It listens to the container's network, which the program refuses without a token."""
    environment = services["sidecar"]["environment"]
    host = environment[PREFIX + "HOST"]
    check_binding(host, Tokens(read="r" * 16, write="w" * 16))
    for scope in ("READ", "WRITE"):
        name = f"{PREFIX}{scope}_TOKEN"
        assert environment[name] in {SECRETS[name], f"${{{name}:?set it in .env}}"}
        with pytest.raises(UsageError, match=name):
            check_binding(host, Tokens())
    assert not (set(SECRETS) - {KEY}) & set(services["ingest"]["environment"])


def test_the_sidecar_has_time_to_give_its_batch_back(services: Mapping[str, Service]) -> None:
    """Docker kills it after a batch and a giving back that each take their time."""
    sidecar = services["sidecar"]
    grace = int(sidecar["environment"][PREFIX + "GRACE_S"])
    assert seconds(sidecar["stop_grace_period"]) >= grace + WorkerSettings().requeue_s + 15
    assert "SIGTERM" == sidecar["stop_signal"]


@pytest.mark.slow
def test_the_sidecar_s_healthcheck_tells_a_ready_one(
    services: Mapping[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own command, past any proxy; with more time than the checks of /readyz have."""
    health, port_inside = services["sidecar"]["healthcheck"], services["sidecar"]["ports"][0]
    kind, program, *arguments, code = health["test"]
    assert ("CMD", "python") == (kind, program)
    assert f'"127.0.0.1", {port_inside["target"]}, timeout=8' in code
    assert Limits().checks_s < 8 < seconds(health["timeout"])
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    def status(port: int) -> int:
        command = [sys.executable, *arguments, code.replace("8080", str(port))]
        return subprocess.run(command, check=False, capture_output=True).returncode

    with answering(200) as port:
        assert 0 == status(port)
    assert 0 != status(port)
    with answering(503) as port:
        assert 0 != status(port)


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


def test_every_variable_is_a_setting() -> None:
    """What starts with the prefix, anywhere in these files, is read by the program."""
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", COMPOSE + ENV_EXAMPLE + WORKFLOW + DOCKERFILE))
    assert KEY in named
    assert {PREFIX + name.upper() for name in SidecarSettings.model_fields} >= named


def test_the_example_explains_every_variable_that_compose_reads() -> None:
    """Each below a comment of its own block, with compose's default; others are settings."""
    example = variables_of_the_example()
    read = dict(re.findall(r"\$\{([A-Z_]+)(?::[-?])?([^}]*)\}", COMPOSE))
    assert set(read) <= set(example)
    assert all(name in read or name.startswith(PREFIX) for name in example)
    defaults = {name: default for name, default in read.items() if name not in SECRETS}
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
