"""The Serve application on this machine: started, reached, stopped. For ``multiverse serve``, demo and benches."""

import asyncio
import logging
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve

import multiverse
from multiverse.config import AppConfig
from multiverse.serving.access.key_file import HASHED, parse_keys

ROOT = Path(multiverse.__file__).resolve().parents[2]
"""deployments/ lies beside the source root, which is all that an installation knows of."""
NAME = "multiverse"
log = logging.getLogger(__name__)


@contextmanager
def serving(
    config: AppConfig,
    config_path: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    quiet: bool = False,
    nodes: int = 1,
) -> Iterator[str]:
    """The running application; gives its base URL. Stops all that was started here. quiet: without Ray's logs.

    Raises ConfigError for a host that others may reach where no key is asked for.

    nodes: Ray nodes, if Ray is started here; more than one are as many on this machine, each with the CPUs that one
    engine replica counts for.
    """
    http = http_options(config_path) | {k: v for k, v in {"host": host, "port": port}.items() if v is not None}
    config.check_host(http["host"])
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from deployments.app import build

    with _cluster(config, quiet, nodes) as ours:
        try:
            serve.start(http_options=http, logging_config={"log_level": "WARNING"} if quiet else None)
            serve.run(build(config), name=NAME, route_prefix="/", blocking=False)
            yield f"http://{http['host']}:{http['port']}/v1"
        finally:
            serve.shutdown() if ours else serve.delete(NAME)


@asynccontextmanager
async def fleet_of(config: AppConfig) -> AsyncIterator[Any]:
    """A router of this process's own beside those of the running application (`deployments.fleet.RayFleet`)."""
    from deployments.fleet import RayFleet

    handles = [serve.get_deployment_handle(name, NAME) for name in ("EngineReplica", "Reducer")]
    fleet = await RayFleet.start(config, handles[0], handles[1], f"bench-{os.getpid()}")
    try:
        while len(fleet.fleet.links) < config.replicas:
            await asyncio.sleep(0.1)
        yield fleet
    finally:
        await fleet.close()


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def http_options(config_path: Path | None) -> dict[str, Any]:
    """Host and port of a Serve file, or this machine only."""
    options = {"host": "127.0.0.1", "port": 8000}
    values = yaml.safe_load(config_path.read_text(encoding="utf-8")) if config_path is not None else None
    return options | (values.get("http_options") or {} if isinstance(values, dict) else {})


def hashed_keys(config: AppConfig) -> dict[str, str]:
    """The keys of this process's environment for that of the replicas. Ray shows and logs it: so only their hashes."""
    name = config.access.keys_env
    keys = parse_keys(os.environ.get(name, ""), name)
    return {name: ",".join(HASHED + key.sha256 for key in keys)} if keys else {}


@contextmanager
def _cluster(config: AppConfig, quiet: bool, nodes: int) -> Iterator[bool]:
    """Join the Ray cluster that runs here, or start one of this process's own (then True)."""
    paths = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    options: dict[str, Any] = {
        "runtime_env": {"env_vars": {"PYTHONPATH": paths, **hashed_keys(config)}},
        "log_to_driver": not quiet,
        "logging_level": logging.WARNING,
    }
    # The engines' cores are shared out by `AppConfig.engines_per_node`; Ray only has to agree to start them.
    cpus = max(1, int(config.num_cpus)) * (config.most_replicas if nodes == 1 else 1) + 1
    cluster = None
    # Ray lets its workers yield to whatever else runs on a machine, which a server on its own machine should not do.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        if nodes > 1:
            # Ray would write a token for its control plane into the home folder; this cluster ends with this process.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            from ray.cluster_utils import Cluster

            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=cpus - 1)
            ray.init(cluster.address, **options)
            yield True
        else:
            try:
                ray.init("auto", **options)
                yield False
            except ConnectionError:
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
                ray.init("local", include_dashboard=False, num_cpus=max(cpus, os.cpu_count() or 1), **options)
                yield True
    finally:
        ray.shutdown()
        if cluster is not None:
            cluster.shutdown()
