"""What measured values are given to, whoever measures them."""

from collections.abc import Sequence
from typing import Protocol

from multiverse.telemetry.metric import Metric


class Recorder(Protocol):
    """Takes measured values.

    Each method raises KeyError for a metric of another kind or outside the table, and ValueError for labels that are
    not exactly the metric's.
    """

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Add ``amount`` >= 0 to a counter."""

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""


class Recorders:
    """Several recorders as one."""

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._recorders = recorders

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        for recorder in self._recorders:
            recorder.inc(metric, amount, **labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        for recorder in self._recorders:
            recorder.set(metric, value, **labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        for recorder in self._recorders:
            recorder.observe(metric, value, **labels)


class Growing:
    """Counters of what others count as totals since their start: what is new is added."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._counted: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def count(self, metric: Metric, total: float, **labels: str) -> None:
        key = (metric, tuple(labels.values()))
        new = total - self._counted.get(key, 0.0)
        if new > 0 or key not in self._counted:
            self._recorder.inc(metric, max(0.0, new), **labels)
        self._counted[key] = total
