"""What the Dask operator is asked for, and one line where there is nobody to ask."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import dask
import jsonschema
import kubernetes_validate
import numpy as np
import pytest
import yaml
import zarr
from dask_kubernetes.operator.controller import (
    build_scheduler_deployment_spec,
    build_scheduler_service_spec,
    build_worker_deployment_spec,
)

import tilesegment as ts
from tests.execution.test_separate_processes import free_port, wait_for_workers
from tests.pictures import load_predictor, random_pixels, whole_pass, write_image
from tests.usecases.test_segment import OPTIONS
from tilesegment.config import ClusterOptions, KubernetesOptions, WorkerRange
from tilesegment.errors import OptionError
from tilesegment.execution.cluster import SETTINGS, memory_limit, open_cluster
from tilesegment.execution.kubernetes import cluster_spec

CRDS = "operator/deployment/helm/dask-kubernetes-operator/crds"
PODS = KubernetesOptions(
    image="registry.example.org/tilesegment:1",
    gpus=1,
    volumes=("slides:/slides", "models:/models"),
    secrets=("store",),
    node_selector=("gpu=h200",),
    tolerations=("nvidia.com/gpu",),
    pull_secret="registry",  # noqa: S106 - a name
)
GPU = ClusterOptions("kubernetes", 3, kubernetes=PODS)
CPU = replace(GPU, kubernetes=replace(PODS, gpus=0))


def spec_of(options: ClusterOptions) -> dict[str, Any]:
    return cluster_spec(options, "tilesegment-1", 4, SETTINGS)


@cache
def operators_schema() -> dict[str, Any]:
    """The schema by which the API server judges a DaskCluster."""
    text = files("dask_kubernetes").joinpath(CRDS, "daskcluster.yaml").read_text()
    (version,) = yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("options", [GPU, CPU], ids=["gpu", "cpu"])
def test_the_operators_own_schema_takes_the_cluster(options: ClusterOptions) -> None:
    spec = spec_of(options)
    jsonschema.validate(spec, operators_schema())
    del spec["spec"]["worker"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, operators_schema())


@pytest.mark.parametrize("options", [GPU, CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize("part", ["worker", "scheduler"])
def test_kubernetes_takes_each_pod(options: ClusterOptions, part: str) -> None:
    """The operator's schema knows less of a pod than Kubernetes does: nothing unknown passes."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod"},
        "spec": spec_of(options)["spec"][part]["spec"],
    }
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    pod["spec"]["containers"][0]["evn"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_a_worker_has_what_was_asked_for() -> None:
    spec = spec_of(GPU)["spec"]["worker"]
    assert spec["replicas"] == 3
    pod = spec["spec"]
    (container,) = pod["containers"]
    assert container["args"][:3] == ["dask", "cuda", "worker"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/slides", "/models"]
    assert pod["nodeSelector"] == {"gpu": "h200"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["securityContext"]["runAsNonRoot"]
    names = {item["name"] for item in container["env"]}
    assert "MALLOC_TRIM_THRESHOLD_" not in names
    (container,) = spec_of(CPU)["spec"]["worker"]["spec"]["containers"]
    assert "MALLOC_TRIM_THRESHOLD_" in {item["name"] for item in container["env"]}
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert memory_limit(CPU) == 16 * 2**30


def test_dasks_settings_arrive_as_they_are_here() -> None:
    (container,) = spec_of(CPU)["spec"]["scheduler"]["spec"]["containers"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    read = dask.config.collect_env(variables)
    assert {key: dask.config.get(key, config=read) for key in SETTINGS} == SETTINGS


@pytest.mark.parametrize("options", [GPU, CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize("part", ["worker", "scheduler"])
def test_the_pods_commands_exist(options: ClusterOptions, part: str) -> None:
    """dask-kubernetes names dask-scheduler and dask-worker, which are gone."""
    (container,) = spec_of(options)["spec"][part]["spec"]["containers"]
    words = [word for word in container["args"] if not word.startswith("$(")]
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:], "--help"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def deployed(options: ClusterOptions, address: str | None = None) -> list[dict[str, Any]]:
    """What the operator's own code makes of the cluster, for the API server: scheduler, service,
    worker.
    """
    spec = spec_of(options)["spec"]
    names = {"cluster_name": "tilesegment-1", "annotations": {}, "labels": {}}
    if address is not None:
        for container in spec["worker"]["spec"]["containers"]:
            container["env"].append({"name": "DASK_SCHEDULER_ADDRESS", "value": address})
    return [
        build_scheduler_deployment_spec(pod_spec=spec["scheduler"]["spec"], **names),
        build_scheduler_service_spec(spec=spec["scheduler"]["service"], **names),
        build_worker_deployment_spec(
            worker_group_name="tilesegment-1-default",
            namespace="tilesegment",
            uuid="0123456789",
            pod_spec=spec["worker"]["spec"],
            **names,
        ),
    ]


@pytest.mark.parametrize("options", [GPU, CPU], ids=["gpu", "cpu"])
def test_kubernetes_takes_what_the_operator_makes_of_it(options: ClusterOptions) -> None:
    for item in deployed(options):
        kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


def process_of(item: dict[str, Any], *more: str) -> "subprocess.Popen[bytes]":
    """The process of a deployment's container, on this machine."""
    (container,) = item["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    words = list(container["args"][1:])
    for name, value in variables.items():
        words = [word.replace(f"$({name})", value) for word in words]
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *words, *more],
        env={**os.environ, **variables, "PYTHONPATH": ":".join(sys.path)},
        stderr=subprocess.DEVNULL,
    )


def test_the_pods_processes_segment_an_image(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """The commands and variables of the pods, without the pods."""
    port = free_port("127.0.0.2")
    address = f"tcp://127.0.0.2:{port}"
    one_core = replace(CPU, kubernetes=replace(CPU.kubernetes, cores=1))
    scheduler, _, worker = deployed(one_core, address)
    loopback = ["--host", "127.0.0.2", "--port", str(port), "--dashboard-address", "127.0.0.1:0"]
    processes = [process_of(scheduler, *loopback)]
    try:
        processes.append(process_of(worker, "--host", "127.0.0.3"))
        wait_for_workers(ClusterOptions(address), 1)
        pixels = random_pixels((3, 70, 90), "uint8")
        image = write_image(tmp_path / "i.zarr", pixels)
        model = make_model()
        ts.segment(image, model, options=OPTIONS, cluster=ClusterOptions(address))
        with open_cluster(ClusterOptions(address)) as client:
            workers = client.scheduler_info()["workers"].values()
            (name,) = [each["name"] for each in workers]
            stealing = client.run_on_scheduler(
                lambda: dask.config.get("distributed.scheduler.work-stealing")
            )
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)
    written = zarr.open_array(image / "labels" / "model" / "0")[...]
    assert np.array_equal(written, whole_pass(load_predictor(model, "uint8"), pixels, "labels"))
    assert name == "tilesegment-1-default-worker-0123456789"
    assert stealing is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "needs a container image .* set image under"),
        ({"gpus": 2}, "kubernetes.gpus is 2"),
        ({"volumes": ("slides",)}, "kubernetes.volumes has 'slides'; write it as claim:/path"),
        ({"node_selector": ("gpu",)}, "write it as name=value"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    options = replace(GPU, kubernetes=replace(PODS, **changes))
    with pytest.raises(OptionError, match=message):
        spec_of(options)


def test_a_range_begins_with_its_least() -> None:
    assert spec_of(replace(GPU, workers=WorkerRange(2, 16)))["spec"]["worker"]["replicas"] == 2


class _Refusing(BaseHTTPRequestHandler):
    """Answers everything with one status, as an API server does."""

    status = 404

    def do_GET(self) -> None:
        body = json.dumps({"kind": "Status", "code": self.status, "message": "no"}).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def api_server(status: int) -> Iterator[str]:
    handler = type("Handler", (_Refusing,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def open_elsewhere(folder: Path, server: str | None) -> subprocess.CompletedProcess[str]:
    """`tilesegment run --cluster kubernetes` with a kubeconfig; in a process of its own, for kr8s
    remembers clusters.
    """
    config = folder / "kubeconfig"
    if server is not None:
        config.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": server}}],
                    "users": [{"name": "u", "user": {"token": "secret"}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
    script = (
        "from tilesegment.config import *; from tilesegment.execution.cluster import open_cluster\n"
        "from tilesegment.errors import TilesegmentError\n"
        "options = ClusterOptions('kubernetes', kubernetes=KubernetesOptions(image='i'))\n"
        "try:\n    open_cluster(options).__enter__()\n"
        "except TilesegmentError as error:\n    raise SystemExit(str(error))"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path), "KUBECONFIG": str(config), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "has no Dask operator"),
        (403, "does not allow you to make DaskClusters"),
        (500, "the Kubernetes cluster refuses"),
        (None, "no Kubernetes cluster is configured"),
        ("nobody", "no Kubernetes cluster answers"),
    ],
)
def test_nobody_to_ask_is_one_line(status: int | str | None, message: str, tmp_path: Path) -> None:
    if isinstance(status, int):
        with api_server(status) as server:
            result = open_elsewhere(tmp_path, server)
    else:
        result = open_elsewhere(tmp_path, "http://127.0.0.1:1" if status else None)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
