"""The generated files, as text."""

import json
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import curation, kv_joins, serving, speedup, training
from dashboards.alerts import RUNBOOKS, prometheus_rule

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


def kustomization() -> dict[str, Any]:
    """The rules and, for the sidecar of Grafana's chart, a ConfigMap per dashboard."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["alerts.yaml"],
        "configMapGenerator": [{"name": f"dashboard-{name}", "files": [f"{name}.json"]} for name in DASHBOARDS],
        "generatorOptions": {
            # Nobody mounts them, so a new content needs no new name.
            "disableNameSuffixHash": True,
            "labels": {"grafana_dashboard": "1"},
            "annotations": {"grafana_folder": "Multiverse"},
        },
    }


def files(runbooks: str = RUNBOOKS) -> dict[str, str]:
    """By name. The same on every machine. runbooks: see `prometheus_rule`."""
    texts = {f"{name}.json": json.dumps(dashboard(name), indent=1, sort_keys=True) + "\n" for name in DASHBOARDS}
    return texts | {"alerts.yaml": _yaml(prometheus_rule(runbooks)), "kustomization.yaml": _yaml(kustomization())}


def _yaml(values: dict[str, Any]) -> str:
    return "# Written by `make dashboards`.\n" + yaml.safe_dump(values, sort_keys=False, width=120)
