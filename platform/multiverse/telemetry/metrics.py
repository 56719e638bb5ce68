"""The table of all metrics. A new one is an entry in the module of its subject, and is in the table by that."""

from multiverse.telemetry import curation, engines, evaluation, requests, training
from multiverse.telemetry.metric import Kind, Metric

SUBJECTS = (requests, engines, training, curation, evaluation)

METRICS: tuple[Metric, ...] = tuple(
    dict.fromkeys(value for subject in SUBJECTS for value in vars(subject).values() if isinstance(value, Metric))
)


def of_kind(kind: Kind) -> tuple[Metric, ...]:
    """The metrics of `METRICS` of one kind, in its order."""
    return tuple(metric for metric in METRICS if metric.kind == kind)
