"""The example of an ingest on many machines: valid by schema, and of one piece.

No cluster is asked: the files are read, and rendered by `kubectl kustomize` where there is one.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant import __version__
from msmarco_qdrant.cli.app import cli
from tests.conftest import ROOT
from tests.deploy.files import COMPOSE, load_yaml

Manifest = Mapping[str, Any]

FOLDER = ROOT / "deploy" / "ray"
SCHEMA = json.loads((Path(__file__).parent / "schemas.json").read_text("utf-8"))
FILES = ("qdrant.yaml", "claims.yaml", "ingest.yaml", "secret.example.yaml")


@cache
def documents() -> list[Manifest]:
    """Every manifest."""
    yaml = pytest.importorskip("yaml")
    return [one for name in FILES for one in yaml.safe_load_all((FOLDER / name).read_text())]


def one(kind: str) -> Any:
    """The only manifest of a kind."""
    (found,) = (manifest for manifest in documents() if manifest["kind"] == kind)
    return found


def pods() -> Iterator[Manifest]:
    """The specification of each pod."""
    yield one("StatefulSet")["spec"]["template"]["spec"]
    cluster = one("RayJob")["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in cluster["workerGroupSpecs"])


def errors(manifest: Manifest) -> list[str]:
    """The paths of the fields that the schema refuses."""
    jsonschema = pytest.importorskip("jsonschema")
    return [
        error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(manifest)
    ]


def test_every_manifest_is_valid() -> None:
    """By the schema of its kind."""
    assert [] == [problem for manifest in documents() for problem in errors(manifest)]
    assert {"RayJob", "StatefulSet", "Service", "Secret", "PodDisruptionBudget"} <= {
        manifest["kind"] for manifest in documents()
    }


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("RayJob", ("spec", "entrypiont")),
        ("RayJob", ("spec", "rayClusterSpec", "headGroupSpec", "rayStartParam")),
        ("StatefulSet", ("spec", "template", "spec", "container")),
        ("StatefulSet", ("replicas",)),
    ],
)
def test_a_misspelled_field_is_refused(kind: str, path: tuple[str, ...]) -> None:
    """The schema has no room for fields that it does not know."""
    changed = deepcopy(one(kind))
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = "x"
    assert errors(changed)


def test_what_one_names_another_is() -> None:
    """Volumes, claims, secrets, services and selectors."""
    claims = {m["metadata"]["name"] for m in documents() if m["kind"] == "PersistentVolumeClaim"}
    services = {m["metadata"]["name"]: m["spec"] for m in documents() if m["kind"] == "Service"}
    qdrant, secret = one("StatefulSet"), one("Secret")
    owned = {claim["metadata"]["name"] for claim in qdrant["spec"]["volumeClaimTemplates"]}
    for pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        used = [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        assert set(used) <= claims
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes | owned
            for variable in container["env"]:
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                assert reference is None or (
                    reference["name"] == secret["metadata"]["name"]
                    and reference["key"] in secret["stringData"]
                )
    labels = qdrant["spec"]["template"]["metadata"]["labels"]
    assert labels == qdrant["spec"]["selector"]["matchLabels"]
    assert {qdrant["spec"]["serviceName"], "qdrant"} == set(services)
    assert all(labels == spec["selector"] for spec in services.values())
    (script,) = qdrant["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"qdrant-0.{qdrant['spec']['serviceName']}:6335" in script


def test_the_command_is_one_the_program_takes() -> None:
    """Its store is the Service, its files are on a mounted disk, the replicas fit the nodes."""
    program, name, *arguments = shlex.split(one("RayJob")["spec"]["entrypoint"])
    assert ("msmarco-qdrant", "ingest") == (program, name)
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    with command.make_context(name, arguments) as context:
        given = context.params
    assert ("http://qdrant:6333", True) == (given["store"], given["bulk"])
    assert "auto" == given["ray"]
    assert given["replication"] <= one("StatefulSet")["spec"]["replicas"]
    mounts = {
        m["mountPath"] for pod in pods() for c in pod["containers"] for m in c["volumeMounts"]
    }
    assert {str(Path(source).parent) for source in given["sources"]} <= mounts


def test_images_are_those_of_the_project() -> None:
    """Qdrant's is the one of docker-compose.yml, ours has this version."""
    images = {container["image"] for pod in pods() for container in pod["containers"]}
    server = load_yaml(COMPOSE)["services"]["qdrant"]["image"]
    assert {server, f"msmarco-qdrant:{__version__}-ray"} == images


def test_kustomize_renders_it() -> None:
    """Everything but the secret and the job."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl: deploy/ray is only read, not rendered")
    done = subprocess.run(
        [kubectl, "kustomize", str(FOLDER)], check=False, capture_output=True, text=True, timeout=60
    )
    assert 0 == done.returncode, done.stderr
    assert "kind: StatefulSet" in done.stdout
    assert "kind: Secret" not in done.stdout
    assert "kind: RayJob" not in done.stdout
