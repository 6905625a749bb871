"""The image and the workflow keep what they promise, and agree with compose."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from collections.abc import Mapping

import pytest

from tests.conftest import ROOT
from tests.deploy.files import (
    COMPOSE,
    DOCKERFILE,
    DOCKERIGNORE,
    FINAL_STAGE,
    WORKFLOW,
    Service,
    load_yaml,
    variables_of_the_example,
)


@pytest.fixture(scope="module")
def services() -> Mapping[str, Service]:
    """The services of docker-compose.yml, as it is written."""
    found: Mapping[str, Service] = load_yaml(COMPOSE)["services"]
    return found


# ---- the image ---------------------------------------------------------------------------------


def test_the_image_runs_as_the_user_of_compose(services: Mapping[str, Service]) -> None:
    """By number, so that an orchestrator can tell that it is not root."""
    users = re.findall(r"^USER (.*)$", FINAL_STAGE, flags=re.MULTILINE)
    assert [services["ingest"]["user"]] == users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[0])
    owner, group = users[0].split(":")
    assert f"install --directory --owner {owner} --group {group} " in FINAL_STAGE


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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"offline", *default.split(",")} <= set(project["optional-dependencies"])


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
