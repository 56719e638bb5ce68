"""What a metric is."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as Prometheus sees it.

    unit: what one is, for axes of dashboards: "seconds", "tokens", "ratio", ...
    labels: their names; every recorded value gives all of them. Their values are named by the platform or its operator,
        never by who sends a request: each new value is a series that Prometheus keeps.
    buckets: upper bounds of a histogram, ascending and positive, without +Inf; empty for the other kinds.
    """

    name: str
    kind: Kind
    help: str
    unit: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
