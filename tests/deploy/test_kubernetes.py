"""The example for Kubernetes fits the program, its image, and itself.

No cluster is asked: the files are read, and rendered by `kubectl kustomize` where there is one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import pytest

from msmarco_qdrant import __version__
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.interfaces import Limits, Tokens, check_binding
from msmarco_qdrant.service.settings import SidecarSettings, load_sidecar_settings
from msmarco_qdrant.service.spool.spool import MAX_BYTES
from msmarco_qdrant.service.worker.worker import WorkerSettings
from tests.conftest import ROOT
from tests.deploy.files import COMPOSE, FINAL_STAGE, PREFIX, SECRETS, load_yaml
from tests.service.worker.driver import Driver, drive

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


def test_every_file_is_applied_and_told_of() -> None:
    """All but the secret, which would overwrite the real one, are in the kustomization."""
    applied = {*documents("kustomization.yaml")[0]["resources"], "kustomization.yaml"}
    assert SECRET not in applied
    found = {path.name for path in FOLDER.iterdir()}
    assert {*applied, SECRET, "README.md"} == found
    told = re.findall(r"^\| \[[\w.-]+\]\(([\w.-]+)\)", README, flags=re.MULTILINE)
    assert found - {"README.md"} == set(told)


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


def test_the_ports_are_those_that_are_listened_to() -> None:
    """Of services, policy and the application's own URL."""
    listening = {port["containerPort"] for one in (app(), sidecar()) for port in one["ports"]}
    assert int(config()[PREFIX + "PORT"]) == sidecar()["ports"][0]["containerPort"]
    services = [manifest for manifest in manifests() if manifest["kind"] == "Service"]
    reached = {port["targetPort"] for service in services for port in service["spec"]["ports"]}
    rules = one("NetworkPolicy")["spec"]["ingress"]
    assert listening == reached == {port["port"] for rule in rules for port in rule["ports"]}
    guarded = [rule for rule in rules if rule["ports"][0]["port"] == int(config()[PREFIX + "PORT"])]
    assert all(rule["from"] for rule in guarded)
    assert {"name": "SIDECAR_URL", "value": "http://localhost:8080"} in app()["env"]


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
    settings = load_sidecar_settings({})
    for name in ("collection", "model", "host", "port", "spool", "inbox"):
        assert given[PREFIX + name.upper()] == str(getattr(settings, name))
    check_binding(settings.host, Tokens(read="r" * 16, write="w" * 16))
    with pytest.raises(UsageError, match="loopback only"):
        check_binding(settings.host, Tokens())


def test_the_secret_s_placeholders_are_refused() -> None:
    """Whoever forgets to replace them is told so; nothing else holds a secret."""
    placeholders = one("Secret")["stringData"]
    assert set(SECRETS) == set(placeholders)
    assert not set(SECRETS) & set(config())
    for name, value in placeholders.items():
        with pytest.raises(UsageError, match="cannot be used"):
            Tokens(read=value)
        assert f"--from-literal={name}=" in README


def test_the_model_is_in_the_image_that_readme_builds() -> None:
    """So that no pod needs a model hub to start."""
    (extras,) = re.findall(r"--build-arg EXTRAS=(\S+)", README)
    assert {"serve", "offline"} <= set(extras.split(","))
    assert "all-MiniLM-L6-v2" == config()[PREFIX + "MODEL"]
    assert "1" == config()["HF_HUB_OFFLINE"]


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


def test_probes_have_more_time_than_what_they_ask() -> None:
    """The checks of /readyz end first and say which failed; a start may take minutes."""
    assert Limits().checks_s < sidecar()["readinessProbe"]["timeoutSeconds"]
    start, life = sidecar()["startupProbe"], sidecar()["livenessProbe"]
    assert 300 <= start["periodSeconds"] * start["failureThreshold"]
    assert 60 <= life["periodSeconds"] * life["failureThreshold"]


def test_there_is_time_to_give_the_batch_back() -> None:
    """After the application's end, for which half a minute stays."""
    needed = int(config()[PREFIX + "GRACE_S"]) + WorkerSettings().giving_back_s + 15
    assert pod()["terminationGracePeriodSeconds"] >= needed + 30


def test_there_is_one_pod_and_never_two() -> None:
    """The spool is of one process."""
    spec = one("Deployment")["spec"]
    assert (1, {"type": "Recreate"}) == (spec["replicas"], spec["strategy"])
    assert ["ReadWriteOncePod"] == one("PersistentVolumeClaim")["spec"]["accessModes"]
    assert "Always" == sidecar()["restartPolicy"]


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


def test_every_container_has_requests_and_limits() -> None:
    """Of processor, memory and the node's disk, for the scratch space, too."""
    kinds = {"cpu", "memory", "ephemeral-storage"}
    for container in (sidecar(), app()):
        assert kinds == set(container["resources"]["requests"])
        assert kinds == set(container["resources"]["limits"])
    scratch = [volume["emptyDir"] for volume in pod()["volumes"] if "emptyDir" in volume]
    assert scratch
    assert all(volume["sizeLimit"] for volume in scratch)
    threads = {variable["name"]: variable for variable in sidecar()["env"]}["OMP_NUM_THREADS"]
    assert "limits.cpu" == threads["valueFrom"]["resourceFieldRef"]["resource"]


def test_what_is_kept_lies_on_the_disk() -> None:
    """Spool, inbox and models, below the root that may hold lost+found; /tmp is writable, too."""
    mounts = {mount["name"]: mount for mount in sidecar()["volumeMounts"]}
    disk = mounts["data"]["mountPath"]
    places = [PurePosixPath(config()[name]) for name in (PREFIX + "SPOOL", PREFIX + "INBOX")]
    assert all(str(place.parent) == disk for place in [*places, PurePosixPath(config()["HF_HOME"])])
    assert "subPath" not in mounts["data"]  # a file of the inbox is renamed into the spool
    (shared,) = (mount for mount in app()["volumeMounts"] if mount["name"] == "data")
    assert places[1].name == shared["subPath"]
    for container in (sidecar(), app()):
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}  # noqa: S108
    size = one("PersistentVolumeClaim")["spec"]["resources"]["requests"]["storage"]
    assert int(size.removesuffix("Gi")) << 30 >= 4 * MAX_BYTES


def test_it_starts_what_compose_starts() -> None:
    """The same command, and the same time for the batch in hand."""
    services = load_yaml(COMPOSE)["services"]
    assert services["sidecar"]["command"] == sidecar()["args"]
    name = PREFIX + "GRACE_S"
    assert services["sidecar"]["environment"][name] == config()[name]
