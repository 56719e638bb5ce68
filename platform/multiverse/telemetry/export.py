"""The two ways to export metrics: through Ray, and with ``prometheus_client``.

Inside Ray, metrics go through Ray's agent (`build_ray`), which puts ``ray_`` before each name and makes up a
histogram's ``_sum`` from bucket midpoints: exact means come from counters, as in tokens / critical-path tokens.
Processes outside Ray export with ``prometheus_client`` (`build`).
"""

import threading
import time
import weakref
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from multiverse.telemetry.metric import Metric
from multiverse.telemetry.metrics import of_kind
from multiverse.telemetry.recorders import Recorder


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


REFRESH_SECONDS = 1.0
"""Ray drops a gauge's value when it has reported it and shows it for two intervals (of a second at least): one that is
not set again by then is gone, whether or not it is still true."""


class RayRecorder:
    """`Recorder` into Ray's metrics agent. ``module`` is ``ray.util.metrics`` or ``ray.serve.metrics``.

    Every value also gets the label ``model``: one Ray cluster may serve and train several.
    """

    def __init__(self, module: Any, model: str) -> None:
        def labels(metric: Metric) -> tuple[str, ...]:
            return (*metric.labels, "model")

        self._model = model
        self._counters = {m: module.Counter(m.name, m.help, labels(m)) for m in of_kind("counter")}
        self._gauges = {m: module.Gauge(m.name, m.help, labels(m)) for m in of_kind("gauge")}
        self._histograms = {
            m: module.Histogram(m.name, m.help, list(m.buckets), labels(m)) for m in of_kind("histogram")
        }
        self._last: dict[tuple[Metric, tuple[str, ...]], tuple[float, dict[str, str]]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=_refresh, args=(weakref.ref(self),), daemon=True).start()

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        counter = self._counters[metric]
        tags = self._tags(metric, labels)
        if amount != 0:  # Ray refuses it, Prometheus does not
            counter.inc(amount, tags)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        gauge = self._gauges[metric]
        tags = self._tags(metric, labels)
        with self._lock:
            gauge.set(value, tags)
            self._last[metric, tuple(tags[name] for name in metric.labels)] = value, tags

    def refresh(self) -> None:
        """Set every gauge to its last value again."""
        with self._lock:
            for (metric, _), (value, tags) in self._last.items():
                self._gauges[metric].set(value, tags)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        histogram = self._histograms[metric]
        histogram.observe(value, self._tags(metric, labels))

    def _tags(self, metric: Metric, labels: dict[str, str]) -> dict[str, str]:
        # Ray takes labels that the metric does not have without a word.
        if labels.keys() != set(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")
        return {**labels, "model": self._model}


def _refresh(reference: "weakref.ref[RayRecorder]") -> None:
    """As long as the recorder is there."""
    while (recorder := reference()) is not None:
        recorder.refresh()
        del recorder
        time.sleep(REFRESH_SECONDS)


def build_ray(model: str, *, serve: bool = False) -> Recorder:
    """Make every metric in this Ray process; ``serve`` adds Serve's labels (deployment, replica, application)."""
    if serve:
        from ray.serve import metrics as module
    else:
        from ray.util import metrics as module
    return RayRecorder(module, model)
