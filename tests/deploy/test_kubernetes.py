"""The example for Kubernetes fits the program, its image, and itself.

No cluster is asked: the files are read, and rendered by `kubectl kustomize` where there is one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from msmarco_qdrant import __version__
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.http.tokens import Tokens, check_binding
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.worker.worker import WorkerSettings
from msmarco_qdrant.settings import load_as
from tests.conftest import ROOT
from tests.deploy.files import FINAL_STAGE, PREFIX, SECRETS
from tests.service.http.driver import Driver, drive

Manifest = Mapping[str, Any]

FOLDER = ROOT / "deploy" / "kubernetes"
README = (FOLDER / "README.md").read_text()
SECRET = "secret.example.yaml"  # noqa: S105  # a file's name


@cache
def documents(name: str) -> list[Manifest]:
    """The manifests of a file."""
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def manifests() -> Iterator[Manifest]:
    """All that is applied, the secret among it."""
    for name in [*documents("kustomization.yaml")[0]["resources"], SECRET]:
        yield from documents(name)


def one(kind: str) -> Manifest:
    """The only manifest of a kind."""
    (found,) = (manifest for manifest in manifests() if manifest["kind"] == kind)
    return found


def pod() -> Manifest:
    """The specification of the pod."""
    spec: Manifest = one("Deployment")["spec"]["template"]["spec"]
    return spec


def sidecar() -> Manifest:
    """The sidecar's container."""
    (container,) = pod()["initContainers"]
    assert "sidecar" == container["name"]
    return dict(container)


def app() -> Manifest:
    """The application's container."""
    (container,) = pod()["containers"]
    return dict(container)


def config() -> Mapping[str, str]:
    """The settings that are no secret."""
    data: Mapping[str, str] = one("ConfigMap")["data"]
    return data


# ---- the files ---------------------------------------------------------------------------------


def test_what_one_names_another_is() -> None:
    """Selectors, claims, settings and secrets fit together; every name is of the application."""
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels == one("Deployment")["spec"]["selector"]["matchLabels"]
    assert labels == one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for manifest in manifests():
        assert labels == manifest["metadata"]["labels"]
        if manifest["kind"] == "Service":
            assert labels == manifest["spec"]["selector"]
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod()["volumes"]
        if "emptyDir" not in volume
    ]
    assert [one("PersistentVolumeClaim")["metadata"]["name"]] == claims
    assert [
        {"configMapRef": {"name": one("ConfigMap")["metadata"]["name"]}},
        {"secretRef": {"name": one("Secret")["metadata"]["name"]}},
    ] == sidecar()["envFrom"]
    for variable in app()["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        assert reference is None or reference["key"] in one("Secret")["stringData"]


def test_kustomize_renders_it() -> None:
    """With a tag of its own for each image."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl: deploy/kubernetes is only read, not rendered")
    done = subprocess.run(
        [kubectl, "kustomize", str(FOLDER)], check=False, capture_output=True, text=True, timeout=60
    )
    assert 0 == done.returncode, done.stderr
    images = re.findall(r"^ +image: (.*)$", done.stdout, flags=re.MULTILINE)
    assert [f"msmarco-qdrant:{__version__}", "your-app:1.0.0"] == sorted(images)


# ---- settings ----------------------------------------------------------------------------------


def test_every_variable_is_a_setting() -> None:
    """What starts with the prefix is read by the program, and taken as it stands here."""
    text = "".join(path.read_text() for path in FOLDER.iterdir())
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", text))
    assert {PREFIX + name.upper() for name in SidecarSettings.model_fields} >= named
    assert {*config(), *one("Secret")["stringData"]} <= {*named, "HF_HUB_OFFLINE", "HF_HOME"}


def test_the_settings_are_taken_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """All together, and the program listens to the pod's address with both tokens only."""
    given = {**config(), **SECRETS}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_as(SidecarSettings, {})
    for name in ("collection", "model", "host", "port", "spool", "inbox"):
        assert given[PREFIX + name.upper()] == str(getattr(settings, name))
    check_binding(settings.host, Tokens(read="r" * 16, write="w" * 16))
    with pytest.raises(UsageError, match="without both tokens"):
        check_binding(settings.host, Tokens())


def test_the_secret_s_placeholders_are_refused() -> None:
    """Whoever forgets to replace them is told so; nothing else holds a secret."""
    placeholders = one("Secret")["stringData"]
    assert set(SECRETS) == set(placeholders)
    assert not set(SECRETS) & set(config())
    for name, value in placeholders.items():
        with pytest.raises(UsageError, match="16 or more visible ASCII"):
            Tokens(read=value)
        assert f"--from-literal={name}=" in README


# ---- probes and the end ------------------------------------------------------------------------


def test_probes_ask_what_the_program_answers() -> None:
    """By the pod's address and without a token."""
    probes = [sidecar()[f"{name}Probe"] for name in ("startup", "liveness", "readiness")]
    paths = [probe["httpGet"]["path"] for probe in probes]
    assert ["/healthz", "/healthz", "/readyz"] == paths
    assert {int(config()[PREFIX + "PORT"])} == {probe["httpGet"]["port"] for probe in probes}

    async def use(driver: Driver) -> None:
        for path in paths:
            answer = await driver.client.get(path, headers={"host": "10.1.2.3:8080"})
            assert 200 == answer.status_code, path

    drive(use, tokens=Tokens(read="r" * 16, write="w" * 16))


def test_there_is_time_to_give_the_batch_back() -> None:
    """After the application's end, for which half a minute stays."""
    needed = int(config()[PREFIX + "GRACE_S"]) + WorkerSettings().requeue_s + 15
    assert pod()["terminationGracePeriodSeconds"] >= needed + 30


# ---- what the pod may do -----------------------------------------------------------------------


def test_the_pod_is_hardened() -> None:
    """No root, no writable root filesystem, no capability, no account of the cluster's."""
    spec = pod()
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False  # they are variables such as MSMARCO_QDRANT_PORT
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(spec)
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    user, group, files = (security[name] for name in ("runAsUser", "runAsGroup", "fsGroup"))
    assert f"USER {user}:{group}\n" in FINAL_STAGE
    assert group == files
    assert {"type": "RuntimeDefault"} == security["seccompProfile"]
    for container in (sidecar(), app()):
        assert {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        } == container["securityContext"]
