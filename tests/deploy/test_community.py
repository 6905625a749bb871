"""Dockerfile, workflows and tool settings agree with the project."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import ROOT
from tests.deploy.files import (
    DOCKERFILE,
    DOCKERIGNORE,
    WHEEL_WORKFLOW,
    WORKFLOWS,
    load_yaml,
    variables_of_the_example,
)


def test_default_extras_exist() -> None:
    """Image and compose install the same extras."""
    (default,) = re.findall(r"^ARG EXTRAS=(.*)$", DOCKERFILE, flags=re.MULTILINE)
    assert variables_of_the_example()["EXTRAS"] == default
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"offline", *default.split(",")} <= set(project["optional-dependencies"])


def test_readme_on_pypi_has_absolute_links() -> None:
    """As the build replaces them; README and the project name one repository."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hook = pyproject["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    (one,) = hook["substitutions"]
    readme = (ROOT / "README.md").read_text()
    shown = re.sub(one["pattern"], one["replacement"], readme)
    targets = re.findall(r"\]\(([^)]+)\)", shown)
    assert targets
    assert [] == [target for target in targets if not target.startswith(("https://", "#"))]
    repository = pyproject["project"]["urls"]["Repository"]
    assert one["replacement"] == f"]({repository}/blob/main/"
    assert f"git clone {repository} " in readme


def test_docker_ignores_all_but_the_copied_files() -> None:
    """A `.env` or data cannot get into the image."""
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


def test_actions_are_pinned_to_a_full_version() -> None:
    """A moved major tag changes nothing."""
    actions = re.findall(r"uses: (\S+)", WORKFLOWS)
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action), action


def test_make_has_the_targets_of_the_workflows() -> None:
    """Every `make` target of a workflow exists."""
    makefile = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    for target in re.findall(r"\bmake ([\w./-]+)", WORKFLOWS):
        assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target


def test_pre_commit_runs_the_pinned_ruff() -> None:
    """The hook and `make check` use one version."""
    hook = re.search(
        r"^    rev: v(\S+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE
    )
    assert hook is not None
    assert f"\nruff=={hook[1]}\n" in (ROOT / "constraints.txt").read_text()


def test_wheel_is_tested_on_every_supported_python() -> None:
    """The classifiers and the wheel workflow name the same versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"Python :: (\d\.\d+)", "\n".join(project["classifiers"]))
    assert versions == load_yaml(WHEEL_WORKFLOW)["jobs"]["linux"]["strategy"]["matrix"]["python"]
