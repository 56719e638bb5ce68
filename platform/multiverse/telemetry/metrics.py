"""Every metric of the platform, in one table, and the two ways to export them.

Inside Ray, metrics go through Ray's agent (`build_ray`), which puts ``ray_`` before each name and makes up a
histogram's ``_sum`` from bucket midpoints: exact means come from counters, as in tokens / critical-path tokens.
Processes outside Ray export with ``prometheus_client`` (`build`). Code that measures knows only a `Recorder` and the
constants here.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as Prometheus sees it.

    unit: what one is, for axes of dashboards: "seconds", "tokens", "ratio", ...
    labels: their names; every recorded value gives all of them.
    buckets: upper bounds of a histogram, ascending and positive, without +Inf; empty for the other kinds.
    """

    name: str
    kind: Kind
    help: str
    unit: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# mode: auto, force or off. outcome: the finish reason, or "cancelled" or "error".
REQUESTS = Metric(
    "multiverse_requests_total", "counter", "Requests that ended, by outcome.", "requests", ("mode", "outcome")
)
REQUESTS_RUNNING = Metric("multiverse_requests_running", "gauge", "Requests admitted and not ended.", "requests")
ADMISSION_WAITING = Metric(
    "multiverse_admission_waiting", "gauge", "Requests that wait for their turn before the engine.", "requests"
)
# reason: unauthorized, not_local, width, concurrency, tokens_per_minute, queue_full or kv.
REJECTIONS = Metric(
    "multiverse_rejections_total", "counter", "Requests turned away before generation.", "requests", ("reason",)
)
# key: its name.
KEY_REQUESTS = Metric("multiverse_key_requests_total", "counter", "Requests admitted, by key.", "requests", ("key",))
# kind: prompt or completion.
KEY_TOKENS = Metric(
    "multiverse_key_tokens_total",
    "counter",
    "Tokens of prompts and tokens made, by key, those of cancelled requests included.",
    "tokens",
    ("key", "kind"),
)
TOKENS = Metric("multiverse_tokens_total", "counter", "Tokens after the prompt, of all branches.", "tokens", ("mode",))
CRITICAL_PATH_TOKENS = Metric(
    "multiverse_critical_path_tokens_total",
    "counter",
    "Positions after the prompt, the longest branch counted once per block.",
    "tokens",
    ("mode",),
)
PARALLELISM = Metric(
    "multiverse_parallelism",
    "histogram",
    "Tokens per position of the critical path, per request; 1 is sequential.",
    "ratio",
    ("mode",),
    (1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0),
)
FORKS = Metric("multiverse_forks_total", "counter", "Blocks whose branches were started.", "blocks")
JOINS = Metric("multiverse_joins_total", "counter", "Blocks whose branches were merged.", "blocks")
FORK_WIDTH = Metric(
    "multiverse_fork_width",
    "histogram",
    "Branches of a block.",
    "branches",
    buckets=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0),
)
BLOCK_DEPTH = Metric(
    "multiverse_block_depth",
    "histogram",
    "Nesting depth of a block; 1 is the outermost.",
    "levels",
    buckets=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
)
BRANCH_SECONDS = Metric(
    "multiverse_branch_seconds",
    "histogram",
    "From a branch's start to its end.",
    "seconds",
    buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0),
)
JOIN_SECONDS = Metric(
    "multiverse_join_seconds",
    "histogram",
    "From the end of a block's last branch to the first token after the join.",
    "seconds",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
LEASES = Metric("multiverse_leases", "gauge", "Leases on KV that are held.", "leases")
LEASED_BLOCKS = Metric("multiverse_leased_blocks", "gauge", "KV cache blocks under lease.", "blocks")
LEASE_SPILLS = Metric("multiverse_lease_spills_total", "counter", "Leases moved to host memory.", "leases")
LEASE_DROPS = Metric("multiverse_lease_drops_total", "counter", "Leases given up; their KV is rebuilt.", "leases")
LEASES_LEAKED = Metric(
    "multiverse_leases_leaked_total", "counter", "Leases that outlived their request; any is a defect.", "leases"
)
REBUILDS = Metric(
    "multiverse_rebuilds_total", "counter", "KV of closed blocks or branches made again.", "rebuilds", ("reason",)
)
# distance: near or far. A replica reads what another one of its node has made; from other nodes it is carried first.
KV_MOVED = Metric(
    "multiverse_kv_moved_bytes_total", "counter", "KV that replicas read from other ones.", "bytes", ("distance",)
)
# policy: home, spread or adaptive. outcome: home or remote.
PLACEMENTS = Metric(
    "multiverse_placements_total", "counter", "Branches by where they were placed.", "branches", ("policy", "outcome")
)
# reason: late or lost.
BRANCHES_RETRIED = Metric(
    "multiverse_branches_retried_total",
    "counter",
    "Branches that went on elsewhere because they took too long or their replica was lost.",
    "branches",
    ("reason",),
)
SEGMENTS_WAITING = Metric(
    "multiverse_segments_waiting", "gauge", "Segments that wait in the router for a place in a batch.", "segments"
)
REPLICAS = Metric("multiverse_replicas", "gauge", "Engine replicas that answer.", "replicas")
REPLICAS_LOST = Metric(
    "multiverse_replicas_lost_total", "counter", "Engine replicas that died or did not answer.", "replicas"
)
FALLBACKS = Metric(
    "multiverse_fallbacks_total", "counter", "Requests that went on sequentially.", "requests", ("reason",)
)

METRICS: tuple[Metric, ...] = (
    REQUESTS,
    REQUESTS_RUNNING,
    ADMISSION_WAITING,
    REJECTIONS,
    KEY_REQUESTS,
    KEY_TOKENS,
    TOKENS,
    CRITICAL_PATH_TOKENS,
    PARALLELISM,
    FORKS,
    JOINS,
    FORK_WIDTH,
    BLOCK_DEPTH,
    BRANCH_SECONDS,
    JOIN_SECONDS,
    LEASES,
    LEASED_BLOCKS,
    LEASE_SPILLS,
    LEASE_DROPS,
    LEASES_LEAKED,
    REBUILDS,
    KV_MOVED,
    PLACEMENTS,
    BRANCHES_RETRIED,
    SEGMENTS_WAITING,
    REPLICAS,
    REPLICAS_LOST,
    FALLBACKS,
)


class Recorder(Protocol):
    """Takes measured values.

    Each method raises KeyError for a metric of another kind or outside `METRICS`, and ValueError for labels that are
    not exactly the metric's.
    """

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Add ``amount`` >= 0 to a counter."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""


def of_kind(kind: Kind) -> tuple[Metric, ...]:
    """The metrics of `METRICS` of one kind, in its order."""
    return tuple(metric for metric in METRICS if metric.kind == kind)


class PrometheusRecorder:
    """`Recorder` into a registry of ``prometheus_client``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counters = {m: Counter(m.name, m.help, m.labels, registry=registry) for m in of_kind("counter")}
        self._gauges = {m: Gauge(m.name, m.help, m.labels, registry=registry) for m in of_kind("gauge")}
        self._histograms = {
            m: Histogram(m.name, m.help, m.labels, registry=registry, buckets=m.buckets) for m in of_kind("histogram")
        }

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        counter = self._counters[metric]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        gauge = self._gauges[metric]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        histogram = self._histograms[metric]
        (histogram.labels(**labels) if labels else histogram).observe(value)


def build(registry: CollectorRegistry) -> Recorder:
    """Register every metric in ``registry``. Raises ValueError where one of the names is taken there already."""
    return PrometheusRecorder(registry)


class RayRecorder:
    """`Recorder` into Ray's metrics agent. ``module`` is ``ray.util.metrics`` or ``ray.serve.metrics``."""

    def __init__(self, module: Any) -> None:
        self._counters = {m: module.Counter(m.name, m.help, m.labels) for m in of_kind("counter")}
        self._gauges = {m: module.Gauge(m.name, m.help, m.labels) for m in of_kind("gauge")}
        self._histograms = {
            m: module.Histogram(m.name, m.help, list(m.buckets), m.labels) for m in of_kind("histogram")
        }

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        counter = self._counters[metric]
        _check_labels(metric, labels)
        if amount != 0:  # Ray refuses it, Prometheus does not
            counter.inc(amount, labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        gauge = self._gauges[metric]
        _check_labels(metric, labels)
        gauge.set(value, labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        histogram = self._histograms[metric]
        _check_labels(metric, labels)
        histogram.observe(value, labels)


def _check_labels(metric: Metric, labels: dict[str, str]) -> None:
    # Ray takes labels that the metric does not have without a word.
    if labels.keys() != set(metric.labels):
        raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")


def build_ray(*, serve: bool = False) -> Recorder:
    """Make every metric in this Ray process; ``serve`` adds Serve's labels (deployment, replica, application)."""
    if serve:
        from ray.serve import metrics as module
    else:
        from ray.util import metrics as module
    return RayRecorder(module)
