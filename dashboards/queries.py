"""PromQL over the platform's metrics, by the metrics themselves: one that is not in the table cannot be asked for."""

from dataclasses import dataclass

from multiverse.telemetry.metric import Metric

SERVED = 'model=~"$model",application=~"$deployment"'
"""Of the Serve applications that are chosen above a dashboard."""
OF_MODEL = 'model=~"$model"'
"""Of jobs, which are no Serve application."""
INTERVAL = "$__rate_interval"
RANGE = "$__range"
"""The time that a dashboard shows."""
GAP = "10m"
"""For so long a series may be missing without being taken for a new one."""
SERVE_STATUS = "ray_serve_deployment_status"
"""Ray Serve's own metric of every deployment, from when it is asked for."""


@dataclass(frozen=True, slots=True)
class Query:
    """legend: Grafana's, with labels in double braces."""

    expr: str
    legend: str


def series(metric: Metric, where: str = SERVED, suffix: str = "", **labels: str) -> str:
    """A metric's series, as Ray's agent exports them. labels: regular expressions that their values match."""
    matches = [where, *(f'{name}=~"{value}"' for name, value in labels.items())]
    return f"ray_{metric.name}{suffix}{{{','.join(filter(None, matches))}}}"


def rate(
    metric: Metric, *by: str, where: str = SERVED, suffix: str = "", interval: str = INTERVAL, **labels: str
) -> str:
    """Of a counter, per second, over all processes."""
    return _sum(f"rate({series(metric, where, suffix, **labels)}[{interval}])", by)


def fleet_rate(metric: Metric) -> str:
    """Of a counter that each router tells of its whole fleet, per second."""
    return _sum(_over("max", f"rate({series(metric)}[{INTERVAL}])", ("model", "application")), ())


def grown(
    metric: Metric, *by: str, where: str = SERVED, interval: str = RANGE, operator: str = "sum", **labels: str
) -> str:
    """How much a counter has grown in a time, over all processes, those that are gone included.

    One that began meanwhile began at 0, which ``increase`` cannot see.
    """
    each = series(metric, where, **labels)
    before = f"last_over_time({each}[{GAP}] offset {interval})"
    known, new = f"increase({each}[{interval}]) and {before}", f"last_over_time({each}[{interval}]) unless {before}"
    return _over(operator, f"{known} or {new}", by)


def ratio(of: Metric, to: Metric, *by: str, where: str = SERVED, interval: str = INTERVAL, **labels: str) -> str:
    """Of two counters with the same labels: an exact mean."""
    upper, lower = (rate(metric, *by, where=where, interval=interval, **labels) for metric in (of, to))
    return f"{upper} / {lower}"


def quantile(
    share: float, metric: Metric, *by: str, where: str = SERVED, interval: str = INTERVAL, **labels: str
) -> str:
    """Of a histogram."""
    buckets = rate(metric, "le", *by, where=where, suffix="_bucket", interval=interval, **labels)
    return f"histogram_quantile({share:g}, {buckets})"


def total(metric: Metric, *by: str, where: str = SERVED, **labels: str) -> str:
    """A gauge, added up over all processes."""
    return _sum(series(metric, where, **labels), by)


def highest(metric: Metric, *by: str, where: str = SERVED, **labels: str) -> str:
    """The largest of a gauge."""
    return _over("max", series(metric, where, **labels), by)


def mean(metric: Metric, *by: str, where: str = SERVED, **labels: str) -> str:
    return _over("avg", series(metric, where, **labels), by)


def _sum(expr: str, by: tuple[str, ...]) -> str:
    return _over("sum", expr, by)


def _over(operator: str, expr: str, by: tuple[str, ...]) -> str:
    return f"{operator} by ({', '.join(by)}) ({expr})" if by else f"{operator}({expr})"
