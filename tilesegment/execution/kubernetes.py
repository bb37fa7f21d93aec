"""Workers in pods, by the Dask operator (dask-kubernetes): a DaskCluster of our own for each run.

The operator knows no TLS: scheduler and workers speak plain TCP inside the namespace, which
deploy/kubernetes closes by a NetworkPolicy. From outside the cluster the driver's connection is
forwarded through the API server, encrypted and authenticated.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distributed import Client

from tilesegment.config import ClusterOptions, KubernetesOptions, WorkerRange
from tilesegment.errors import ClusterError, OptionError
from tilesegment.execution.environment import dask_variables, worker_threads
from tilesegment.execution.memory import ENVIRONMENT
from tilesegment.execution.versions import refuse_other_versions, without_dasks_warning
from tilesegment.execution.watch import wait_for_first_worker

_IDLE_SECONDS = 1800
"""After which the operator removes a cluster whose driver was killed."""
_START_SECONDS = 300
"""For the scheduler's pod: an image of several gigabytes has to be fetched."""
_SCHEDULER = {"cpu": "1", "memory": "4Gi"}
_IMAGE_GROUP = 1000
"""Of the user in deploy/docker; volumes are made writable for it."""
_RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def cluster_spec(
    options: ClusterOptions, name: str, task_threads: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The DaskCluster that the operator is asked for.

    Args:
        options: how many workers, and what a pod is.
        name: of the cluster.
        task_threads: for reading and writing, of a worker with a GPU.
        settings: dask's, for scheduler and workers.

    Raises:
        OptionError: an option is missing, or says what nobody understands.
    """
    from dask_kubernetes.operator import make_cluster_spec

    pods = options.kubernetes
    if pods.image is None:
        raise OptionError(
            "--cluster kubernetes needs a container image with tilesegment: set image under "
            "[clusters.kubernetes.kubernetes] in tilesegment.toml (docs/deploy/kubernetes.md)"
        )
    if pods.gpus not in (0, 1):
        raise OptionError(
            f"a pod is one worker, with one GPU or none; kubernetes.gpus is {pods.gpus}"
        )
    variables = dask_variables(settings)
    spec: dict[str, Any] = make_cluster_spec(
        name=name,
        image=pods.image,
        n_workers=fewest_workers(options),
        env=variables if pods.gpus else {**ENVIRONMENT, **variables},
        worker_command=_worker_command(pods, task_threads),
        idle_timeout=_IDLE_SECONDS,
    )
    worker, scheduler = spec["spec"]["worker"]["spec"], spec["spec"]["scheduler"]["spec"]
    _complete_worker(worker, pods)
    (container,) = scheduler["containers"]
    container["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]  # noqa: S104 - inside its pod
    container["env"] = _as_list(variables)
    container["resources"] = {"requests": _SCHEDULER, "limits": {"memory": _SCHEDULER["memory"]}}
    for pod in (worker, scheduler):
        _harden(pod, pods)
    return spec


def fewest_workers(options: ClusterOptions) -> int:
    """Workers that a run on Kubernetes begins with."""
    workers = options.workers
    return workers.least if isinstance(workers, WorkerRange) else workers or 1


def _worker_command(pods: KubernetesOptions, task_threads: int) -> list[str]:
    if pods.gpus:
        threads = worker_threads(task_threads, on_gpu=True)
        return ["dask", "cuda", "worker", "--nthreads", str(threads)]
    return ["dask", "worker", "--nworkers", "1", "--nthreads", str(pods.cores)]


def _complete_worker(pod: dict[str, Any], pods: KubernetesOptions) -> None:
    (container,) = pod["containers"]
    amounts = {"cpu": str(pods.cores), "memory": pods.memory}
    if pods.gpus:
        amounts[pods.gpu_resource] = str(pods.gpus)
    container["resources"] = {"requests": amounts, "limits": amounts}
    container["envFrom"] = [{"secretRef": {"name": secret}} for secret in pods.secrets]
    claims = [_pair(volume, ":", "volumes", "claim:/path") for volume in pods.volumes]
    container["volumeMounts"] = [
        {"name": f"data-{number}", "mountPath": path} for number, (_, path) in enumerate(claims)
    ]
    pod["volumes"] = [
        {"name": f"data-{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, (claim, _) in enumerate(claims)
    ]
    labels = [_pair(label, "=", "node_selector", "name=value") for label in pods.node_selector]
    pod["nodeSelector"] = dict(labels)
    pod["tolerations"] = [{"key": key, "operator": "Exists"} for key in pods.tolerations]


def _harden(pod: dict[str, Any], pods: KubernetesOptions) -> None:
    """Neither root nor a token for the API: whoever takes a worker over finds nothing more."""
    pod["automountServiceAccountToken"] = False
    pod["securityContext"] = {
        "runAsNonRoot": True,
        "fsGroup": _IMAGE_GROUP,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if pods.service_account is not None:
        pod["serviceAccountName"] = pods.service_account
    if pods.pull_secret is not None:
        pod["imagePullSecrets"] = [{"name": pods.pull_secret}]
    for container in pod["containers"]:
        container["securityContext"] = _RESTRICTED


def _pair(text: str, separator: str, key: str, form: str) -> tuple[str, str]:
    first, found, second = text.partition(separator)
    if not (first and found and second):
        raise OptionError(f"kubernetes.{key} has {text!r}; write it as {form}")
    return first, second


def _as_list(variables: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


@contextmanager
def open_kubernetes(
    options: ClusterOptions, task_threads: int, settings: Mapping[str, Any]
) -> Iterator[Client]:
    """A client of workers in pods, which are removed with the block.

    Raises:
        ClusterError: there is no Kubernetes, no operator in it, or no worker comes.
        OptionError: an option is missing, or says what nobody understands.
    """
    try:
        import httpx
        import kr8s
        from dask_kubernetes.exceptions import SchedulerStartupError
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise ClusterError(
            "--cluster kubernetes needs the Dask operator's client; install it with: "
            "pip install 'tilesegment[kubernetes]'"
        ) from error
    name = f"tilesegment-{uuid.uuid4().hex[:8]}"
    spec = cluster_spec(options, name, task_threads, settings)
    _refuse_unready(options.kubernetes.namespace)
    try:
        cluster = KubeCluster(
            custom_cluster_spec=spec,
            namespace=options.kubernetes.namespace,
            resource_timeout=_START_SECONDS,
            quiet=True,
        )
    except (
        httpx.HTTPError, kr8s.ServerError, OSError, RuntimeError, SchedulerStartupError,
    ) as error:  # fmt: skip
        raise ClusterError(f"the pods of {name} do not start: {_first_line(error)}") from error
    with cluster, without_dasks_warning(), Client(cluster, set_as_default=False) as client:
        if isinstance(options.workers, WorkerRange):
            cluster.adapt(options.workers.least, options.workers.most)
        wait_for_first_worker(
            client,
            options.wait_seconds,
            f"no worker came within {options.wait_seconds:.0f} s; look at "
            f"`kubectl get pods -l dask.org/cluster-name={name}`",
        )
        refuse_other_versions(client)
        yield client


def _refuse_unready(namespace: str | None) -> None:
    """Ask the API server for DaskClusters.

    Raises:
        ClusterError: nobody answers, or not as a cluster with the operator does.
    """
    import httpx
    import kr8s
    from kr8s.objects import new_class

    # A class of our own: kr8s looks a bare name up in the API, and what is absent is a ValueError.
    clusters = new_class("DaskCluster", "kubernetes.dask.org/v1", asyncio=False, namespaced=True)
    try:
        list(clusters.list(namespace=namespace))
    except (httpx.HTTPError, kr8s.ConnectionClosedError, kr8s.APITimeoutError, OSError) as error:
        raise ClusterError(
            f"no Kubernetes cluster answers ({_first_line(error)}); look at `kubectl cluster-info`"
        ) from error
    except kr8s.ServerError as error:
        code = error.response.status_code if error.response is not None else None
        raise ClusterError(f"{_told(code)} ({_first_line(error)})") from error
    except ValueError as error:
        raise ClusterError(
            "no Kubernetes cluster is configured: there is no kubeconfig, and this is no pod with "
            f"a service account ({_first_line(error)}); look at `kubectl config view`"
        ) from error


def _told(code: int | None) -> str:
    if code == 404:
        return (
            "the Kubernetes cluster has no Dask operator, which --cluster kubernetes needs; "
            "docs/deploy/kubernetes.md says how it is installed"
        )
    if code in (401, 403):
        return (
            "the Kubernetes cluster does not allow you to make DaskClusters; ask for the role of "
            "deploy/kubernetes/base/rbac.yaml"
        )
    return "the Kubernetes cluster refuses"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
