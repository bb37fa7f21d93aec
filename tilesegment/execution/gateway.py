"""Workers from a dask-gateway server, which makes a cluster for each run and speaks TLS itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client

from tilesegment.config import ClusterOptions, WorkerRange
from tilesegment.errors import ClusterError
from tilesegment.execution.versions import refuse_other_versions, without_dasks_warning
from tilesegment.execution.watch import wait_for_first_worker

PREFIX = "gateway+"


@contextmanager
def open_gateway(options: ClusterOptions) -> Iterator[Client]:
    """A client of a new cluster of the gateway, which ends with the block.

    Who the user is stands in dask's configuration (``DASK_GATEWAY__AUTH__TYPE``).

    Args:
        options: the kind is the gateway's address, as ``gateway+https://host``.

    Raises:
        ClusterError: no gateway answers, it gives no cluster, or no worker comes.
    """
    try:
        from dask_gateway import GatewayCluster, GatewayClusterError
    except ImportError as error:
        raise ClusterError(
            f"--cluster {options.kind} needs dask-gateway's client; install it with: "
            "pip install 'tilesegment[gateway]'"
        ) from error
    address = options.kind.removeprefix(PREFIX)
    try:
        cluster = GatewayCluster(address=address, shutdown_on_close=True)
    except (OSError, ValueError, TimeoutError, GatewayClusterError) as error:
        first_line = str(error).partition("\n")[0] or type(error).__name__
        raise ClusterError(
            f"the dask-gateway at {address} gives no cluster ({first_line}); look at the address, "
            "and at DASK_GATEWAY__AUTH__TYPE"
        ) from error
    # The gateway's client closes itself when it is collected, and complains if that was done.
    with cluster, without_dasks_warning():
        if isinstance(options.workers, WorkerRange):
            cluster.adapt(minimum=options.workers.least, maximum=options.workers.most)
        else:
            cluster.scale(options.workers or 1)
        with cluster.get_client(set_as_default=False) as client:
            wait_for_first_worker(
                client,
                options.wait_seconds,
                f"the dask-gateway at {address} gave no worker within "
                f"{options.wait_seconds:.0f} s; ask who runs it",
            )
            refuse_other_versions(client)
            yield client
