"""The metrics of a whole Ray cluster, gathered from the agents of its nodes: for people without service discovery.

A process that belongs to the cluster asks Ray which nodes there are, reads each one's agent, and gives all of it as one
text. Values are as old as Ray's report interval (10 s unless set otherwise).
"""

import logging
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

PREFIXES = ("ray_multiverse_", "ray_serve_", "ray_node_", "ray_vllm_")
"""What is of use here, of the hundreds of metrics that Ray exports."""

SECONDS = 5.0
"""That an agent may take; then it is left out."""

_AT_ONCE = 16
log = logging.getLogger(__name__)


def agents() -> list[str]:
    """The addresses ("host:port") of the metrics agents of the cluster that this process is connected to."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["MetricsExportPort"]]
    return sorted(f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in nodes)


class ClusterCollector(Collector):
    """A collector of ``prometheus_client`` that reads the agents of the nodes there are whenever it is asked."""

    def collect(self) -> Iterator[Metric]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return iter(merged(pool.map(_read, agents())))


def _subject(line: str) -> str:
    """The line from its metric's name on."""
    return line[7:] if line.startswith(("# HELP ", "# TYPE ")) else line


def registry() -> CollectorRegistry:
    """A registry with nothing else in it."""
    made = CollectorRegistry()
    made.register(ClusterCollector())
    return made


def _read(address: str) -> str:
    """What one agent shows; "" if it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=SECONDS) as response:
            text: str = response.read().decode()
            return text
    except OSError as error:
        log.warning("the metrics of %s are left out: %s", address, error)
        return ""


def merged(texts: Iterable[str]) -> list[Metric]:
    """One family per name, with the samples of all nodes; families without our `PREFIXES` are left out."""
    families: dict[str, Metric] = {}
    for text in texts:
        # Before they are parsed: that takes far longer, and most of an agent's text is about Ray itself.
        ours = "\n".join(line for line in text.splitlines() if _subject(line).startswith(PREFIXES))
        for family in text_string_to_metric_families(ours + "\n"):
            known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples.extend(family.samples)
    return list(families.values())


def scrape() -> bytes:
    """The cluster's metrics in Prometheus' text format."""
    return generate_latest(registry())
