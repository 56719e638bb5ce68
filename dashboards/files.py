"""The generated files, as text."""

import json
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import curation, kv_joins, serving, speedup, training
from dashboards.alerts import prometheus_rule

DASHBOARDS = {
    "speedup": speedup.build,
    "serving": serving.build,
    "kv-joins": kv_joins.build,
    "training": training.build,
    "curation": curation.build,
}
"""By the name of their file."""


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    made: dict[str, Any] = json.loads(JSONEncoder().encode(DASHBOARDS[name]().build()))
    for number, panel in enumerate(made["panels"], 1):
        panel["id"] = number
    return made


def files() -> dict[str, str]:
    """By name. The same on every machine."""
    texts = {f"{name}.json": json.dumps(dashboard(name), indent=1, sort_keys=True) + "\n" for name in DASHBOARDS}
    rule = yaml.safe_dump(prometheus_rule(), sort_keys=False, width=120)
    return texts | {"alerts.yaml": f"# Written by `make dashboards`.\n{rule}"}
