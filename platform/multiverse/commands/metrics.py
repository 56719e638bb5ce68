"""``multiverse metrics``: the cluster's metrics for people, and for a Prometheus without service discovery."""

import logging
import signal
import sys
import threading

import ray
from prometheus_client import start_http_server

from multiverse.telemetry.cluster import registry, scrape


def run(host: str, port: int | None) -> None:
    """Print them once, or serve them until SIGINT or SIGTERM. Raises ValueError where no Ray cluster is to be found."""
    try:
        ray.init("auto", log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ValueError(f"there is no Ray cluster to ask; RAY_ADDRESS may name one ({error})") from error
    try:
        if port is None:
            sys.stdout.write(scrape().decode())
            return
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        server, thread = start_http_server(port, host, registry())
        print(f"metrics are at http://{host}:{port}/metrics (Ctrl-C stops)", file=sys.stderr, flush=True)
        stopped.wait()
        server.shutdown()
        thread.join()
    finally:
        ray.shutdown()
