"""Alert rules. Each has a runbook of its name in docs/runbooks/."""

import re
from dataclasses import dataclass
from typing import Any

from dashboards.queries import SERVE_STATUS, grown, quantile, rate, ratio, series
from multiverse.telemetry.curation import LLM_CALLS
from multiverse.telemetry.engines import KV_USAGE, LEASES, LEASES_LEAKED, REBUILDS, REPLICAS, REPLICAS_LOST
from multiverse.telemetry.metric import Metric
from multiverse.telemetry.requests import (
    FALLBACKS,
    FIRST_TOKEN_SECONDS,
    FORKS,
    GENERATION_SECONDS,
    JOIN_SECONDS,
    JOINS,
    REJECTIONS,
    REQUESTS,
    REQUESTS_RUNNING,
    SEQUENTIAL_SECONDS,
)
from multiverse.telemetry.training import CHECKPOINTS, RUNS, STEP, STEPS

RUNBOOKS = "docs/runbooks"
"""Their place in the checkout: it has no address that holds everywhere."""
APP = ("model", "application")


@dataclass(frozen=True, slots=True)
class Alert:
    """minutes: for how long ``expr`` holds before somebody is told."""

    name: str
    expr: str
    minutes: int
    severity: str
    summary: str

    @property
    def runbook(self) -> str:
        """The file's name without its ending: the alert's in kebab case, without the project's."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.name.removeprefix("Multiverse")).lower()


def _of(metric: Metric, operator: str, **labels: str) -> str:
    return f"{operator} by ({', '.join(APP)}) ({series(metric, '', **labels)})"


def _grown(metric: Metric, interval: str, most: int, by: tuple[str, ...] = APP, **options: str) -> str:
    return f"{grown(metric, *by, where='', interval=interval, **options)} > {most}"


def _no_replica() -> str:
    """The routers see none; or there is no router, though Serve was asked for engines some time ago."""
    asked = f'{SERVE_STATUS}{{deployment="EngineReplica"}}'
    waits = f"max by (application) ({asked}) and max by (application) ({asked} offset 15m)"
    return f"{_of(REPLICAS, 'max')} < 1 or {waits} unless on (application) {series(REPLICAS, '')}"


def _stalled() -> str:
    """Gauges go with their process, so that of a run that crashed or waits only its last values are left."""
    step, steps = (f"max by (model) (last_over_time({series(metric, '')}[1h]))" for metric in (STEP, STEPS))
    moves = f"max by (model) (changes({series(STEP, '')}[15m])) > 0"
    ended = _grown(RUNS, "1h", 0, ("model",), outcome="finished|stopped")
    return f"{step} < {steps} unless on (model) {moves} unless on (model) {ended}"


def _rate(metric: Any, interval: str, **labels: str) -> str:
    return rate(metric, *APP, where="", interval=interval, **labels)


def serving() -> list[Alert]:
    parallel = "auto|force"
    speedup = ratio(SEQUENTIAL_SECONDS, GENERATION_SECONDS, *APP, where="", interval="30m", mode=parallel)
    return [
        Alert(
            "MultiverseNoReplica",
            _no_replica(),
            1,
            "critical",
            "No engine replica of {{ $labels.application }} answers: requests fail.",
        ),
        Alert(
            "MultiverseReplicasLost",
            # Each router counts all of them.
            _grown(REPLICAS_LOST, "30m", 2, operator="max"),
            0,
            "warning",
            "Engine replicas of {{ $labels.application }} keep dying: {{ $value | humanize }} within 30 minutes.",
        ),
        Alert(
            "MultiverseRequestsFail",
            f"{_rate(REQUESTS, '10m', outcome='error')} / {_rate(REQUESTS, '10m')} > 0.02",
            5,
            "critical",
            "{{ $value | humanizePercentage }} of the requests of {{ $labels.application }} end with an error.",
        ),
        Alert(
            "MultiverseNoRoom",
            f"{_rate(REJECTIONS, '10m', reason='queue_full|kv')} > 0.05 * {_rate(REQUESTS, '10m')}",
            10,
            "warning",
            "{{ $labels.application }} turns requests away because it has no room.",
        ),
        Alert(
            "MultiverseFirstTokenSlow",
            f"{quantile(0.99, FIRST_TOKEN_SECONDS, *APP, where='', interval='10m')} > 10",
            10,
            "warning",
            "One request in a hundred of {{ $labels.application }} waits {{ $value | humanizeDuration }} for its first "
            "token.",
        ),
        Alert(
            "MultiverseNoSpeedup",
            f"{speedup} < 1 and {_rate(FORKS, '30m')} > 0",
            30,
            "warning",
            "Going parallel does not pay at {{ $labels.application }}: its speed-up is {{ $value | humanize }}.",
        ),
        Alert(
            "MultiverseFallbacks",
            f"{_rate(FALLBACKS, '30m')} / {_rate(REQUESTS, '30m')} > 0.1",
            15,
            "warning",
            "{{ $value | humanizePercentage }} of the requests of {{ $labels.application }} go on sequentially.",
        ),
    ]


def kv() -> list[Alert]:
    return [
        Alert(
            "MultiverseLeasesLeaked",
            _grown(LEASES_LEAKED, "1h", 0),
            0,
            "warning",
            "Leases on KV of {{ $labels.application }} outlived their requests.",
        ),
        Alert(
            "MultiverseLeasesStuck",
            f"{_of(LEASES, 'sum')} > 0 and {_of(REQUESTS_RUNNING, 'sum')} == 0",
            10,
            "warning",
            "{{ $labels.application }} holds {{ $value | humanize }} leases and no request runs.",
        ),
        Alert(
            "MultiverseRebuilds",
            f"{_rate(REBUILDS, '15m')} > 0.1 * {_rate(JOINS, '15m')} and {_rate(JOINS, '15m')} > 0",
            15,
            "warning",
            "{{ $labels.application }} makes the KV of closed blocks again, {{ $value | humanize }} times a second.",
        ),
        Alert(
            "MultiverseJoinsSlow",
            f"{quantile(0.95, JOIN_SECONDS, *APP, where='', interval='15m')} > 2",
            15,
            "warning",
            "A join of {{ $labels.application }} takes {{ $value | humanizeDuration }} (95 %).",
        ),
        Alert(
            "MultiverseKvFull",
            f"{_of(KV_USAGE, 'avg')} > 0.95",
            15,
            "warning",
            "The KV caches of {{ $labels.application }} are {{ $value | humanizePercentage }} full.",
        ),
    ]


def jobs() -> list[Alert]:
    return [
        Alert(
            "MultiverseTrainingStalled",
            _stalled(),
            10,
            "critical",
            "The training of {{ $labels.model }} has not ended, and has done no step for 25 minutes and more.",
        ),
        Alert(
            "MultiverseCheckpointsFail",
            _grown(CHECKPOINTS, "1h", 0, ("model",), outcome="failed"),
            0,
            "warning",
            "Checkpoints of {{ $labels.model }} cannot be saved.",
        ),
        Alert(
            "MultiverseCurationFails",
            f"{_llm(outcome='failed')} / {_llm()} > 0.05",
            10,
            "warning",
            "{{ $value | humanizePercentage }} of curation's calls to {{ $labels.model }} are given up.",
        ),
    ]


def _llm(**labels: str) -> str:
    return rate(LLM_CALLS, "model", where="", interval="15m", **labels)


GROUPS = {"multiverse-serving": serving, "multiverse-kv": kv, "multiverse-jobs": jobs}


def alerts() -> list[Alert]:
    return [alert for group in GROUPS.values() for alert in group()]


def prometheus_rule(runbooks: str = RUNBOOKS) -> dict[str, Any]:
    """All alerts as the Prometheus operator takes them. runbooks: the URL of their folder, for the alerts to link."""
    groups = [{"name": name, "rules": [_rule(alert, runbooks) for alert in group()]} for name, group in GROUPS.items()]
    metadata = {"name": "multiverse", "labels": {"app.kubernetes.io/name": "multiverse"}}
    kind = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}
    return kind | {"metadata": metadata, "spec": {"groups": groups}}


def _rule(alert: Alert, runbooks: str) -> dict[str, Any]:
    annotations = {"summary": alert.summary, "runbook_url": f"{runbooks.rstrip('/')}/{alert.runbook}.md"}
    waits = {"for": f"{alert.minutes}m"} if alert.minutes else {}
    return (
        {"alert": alert.name, "expr": alert.expr}
        | waits
        | {
            "labels": {"severity": alert.severity},
            "annotations": annotations,
        }
    )
