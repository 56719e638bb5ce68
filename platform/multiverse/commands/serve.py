"""``multiverse serve``: the Serve application on this machine's Ray, until Ctrl-C."""

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve

import multiverse
from multiverse.config import AppConfig
from multiverse.serving.access.key_file import HASHED, parse_keys

_ROOT = Path(multiverse.__file__).resolve().parents[2]
log = logging.getLogger(__name__)


def run(config: AppConfig, config_path: Path | None, host: str | None, port: int | None) -> None:
    """Serve until SIGINT or SIGTERM. Then the application is stopped, and Ray unless it ran before."""
    stopped = threading.Event()
    with serving(config, config_path, host, port) as url:
        handlers = {
            number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)
        }
        print(f"{config.name} is served at {url} (Ctrl-C stops it)", flush=True)
        stopped.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def serving(
    config: AppConfig, config_path: Path | None, host: str | None, port: int | None, quiet: bool = False
) -> Iterator[str]:
    """The running application; gives its base URL. Stops all that was started here. quiet: without Ray's logs.

    Raises ConfigError for a host that others may reach where no key is asked for.
    """
    http = _http_options(config_path) | {k: v for k, v in {"host": host, "port": port}.items() if v is not None}
    config.check_host(http["host"])
    # deployments/ lies beside the source root, which is all that an installation knows of.
    sys.path.insert(0, str(_ROOT))
    from deployments.app import build

    ours = _connect(quiet, _hashed_keys(config))
    try:
        serve.start(http_options=http, logging_config={"log_level": "WARNING"} if quiet else None)
        serve.run(build(config), name="multiverse", route_prefix="/", blocking=False)
        yield f"http://{http['host']}:{http['port']}/v1"
    finally:
        serve.shutdown() if ours else serve.delete("multiverse")
        ray.shutdown()


def _http_options(config_path: Path | None) -> dict[str, Any]:
    """Host and port of a Serve file, or this machine only."""
    options = {"host": "127.0.0.1", "port": 8000}
    values = yaml.safe_load(config_path.read_text(encoding="utf-8")) if config_path is not None else None
    return options | (values.get("http_options") or {} if isinstance(values, dict) else {})


def _hashed_keys(config: AppConfig) -> dict[str, str]:
    """The keys of this process's environment for that of the replicas. Ray shows and logs it: so only their hashes."""
    name = config.access.keys_env
    keys = parse_keys(os.environ.get(name, ""), name)
    return {name: ",".join(HASHED + key.sha256 for key in keys)} if keys else {}


def _connect(quiet: bool, environment: dict[str, str]) -> bool:
    """Join the Ray cluster that runs here, or start one of this process's own (then True)."""
    paths = os.pathsep.join([str(_ROOT / "platform"), str(_ROOT)])
    options: dict[str, Any] = {
        "runtime_env": {"env_vars": {"PYTHONPATH": paths, **environment}},
        "log_to_driver": not quiet,
        "logging_level": logging.WARNING,
    }
    try:
        ray.init("auto", **options)
    except ConnectionError:
        # Ray would write a token for its control plane into the home folder; this cluster ends with this process.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init("local", include_dashboard=False, **options)
        return True
    return False
