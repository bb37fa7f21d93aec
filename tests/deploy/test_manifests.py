"""The manifests of deploy/kubernetes, as an API server would judge them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tilesegment.config import ClusterOptions
from tilesegment.execution.cluster import SETTINGS
from tilesegment.execution.kubernetes import cluster_spec
from tilesegment.settings import read_settings

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
TARGETS = ["base", "gpu", "tls"]
needs_kubectl = pytest.mark.skipif(
    not shutil.which("kubectl"), reason="renders with `kubectl kustomize`, which is not here"
)


def documents(path: Path) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def rendered(target: str) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(FOLDER / target)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(made.stdout))


def pods(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each Job and Deployment."""
    return {
        item["metadata"]["name"]: item["spec"]["template"]["spec"]
        for item in items
        if item["kind"] in ("Job", "Deployment")
    }


@needs_kubectl
@pytest.mark.parametrize("target", TARGETS)
def test_kubernetes_takes_what_kustomize_makes(target: str) -> None:
    items = rendered(target)
    assert {"Job", "Role", "NetworkPolicy", "ServiceAccount"} <= {item["kind"] for item in items}
    for item in items:
        kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)
        assert item["kind"] == "Namespace" or item["metadata"]["namespace"] == "tilesegment"


@needs_kubectl
@pytest.mark.parametrize("target", TARGETS)
def test_no_pod_runs_as_root_or_an_image_without_a_version(target: str) -> None:
    for pod in pods(rendered(target)).values():
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["image"].startswith("registry.example.org/tilesegment:0.1.0")
            assert {"requests", "limits"} <= set(container["resources"])


@needs_kubectl
def test_the_tls_pods_find_their_certificates_and_each_other() -> None:
    items = rendered("tls")
    found = pods(items)
    assert set(found) == {"scheduler", "workers", "tilesegment"}
    for pod in found.values():
        assert "certificates" in {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        names = {item["name"] for item in container["env"]}
        assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in names
    (service,) = [item for item in items if item["kind"] == "Service"]
    assert "tls://scheduler:8786" in found["workers"]["containers"][0]["args"]
    assert service["metadata"]["name"] == "scheduler"
    assert "slides" in {volume["name"] for volume in found["workers"]["volumes"]}


@pytest.mark.parametrize("target", ["base", "gpu"])
def test_the_settings_make_a_cluster_in_the_same_volumes(target: str) -> None:
    options = read_settings(FOLDER / target / "tilesegment.toml").clusters["kubernetes"]
    assert isinstance(options, ClusterOptions)
    spec = cluster_spec(options, "t", 4, SETTINGS)
    (job,) = documents(FOLDER / "base" / "job.yaml")
    (driver,) = job["spec"]["template"]["spec"]["containers"]
    (worker,) = spec["spec"]["worker"]["spec"]["containers"]
    mounted = {mount["mountPath"] for mount in driver["volumeMounts"]}
    assert {mount["mountPath"] for mount in worker["volumeMounts"]} <= mounted
    (claim,) = documents(FOLDER / "base" / "claim.yaml")
    assert options.kubernetes.volumes == (f"{claim['metadata']['name']}:/slides",)
    groups = [
        spec["spec"][part]["spec"]["securityContext"]["fsGroup"] for part in ("worker", "scheduler")
    ]
    assert groups == [job["spec"]["template"]["spec"]["securityContext"]["fsGroup"]] * 2


def test_exit_codes_that_running_again_mends_are_run_again() -> None:
    (job,) = documents(FOLDER / "base" / "job.yaml")
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [1, 2, 3, 5]


def test_the_driver_may_do_what_it_does_and_no_more() -> None:
    _, role, binding = documents(FOLDER / "base" / "rbac.yaml")
    allowed = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    for resource in ("daskclusters", "daskautoscalers"):
        assert {(resource, verb) for verb in ("get", "list", "create", "delete")} <= allowed
    assert not any(verb == "*" or resource in ("*", "secrets") for resource, verb in allowed)
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
