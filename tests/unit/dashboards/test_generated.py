"""Dashboards and alerts: as committed, in Grafana's form, of metrics that exist."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dashboards.__main__ import main
from dashboards.alerts import alerts
from dashboards.files import DASHBOARDS, dashboard, files
from dashboards.panels import UNITS
from dashboards.queries import GAP, INTERVAL, RANGE, SERVE_STATUS
from multiverse.telemetry.metrics import METRICS

every_dashboard = pytest.mark.parametrize("name", DASHBOARDS)
_NAME = re.compile(r"\bray_[a-z_]+")
EXPORTED = {
    f"ray_{metric.name}{suffix}"
    for metric in METRICS
    for suffix in (("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",))
}


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def test_regenerating_gives_the_committed_files(root: Path) -> None:
    folder = root / "dashboards/generated"
    assert {path.name: path.read_text() for path in folder.iterdir()} == files()


def test_alerts_link_the_runbooks_where_they_are_said_to_be(tmp_path: Path) -> None:
    main(tmp_path, runbooks="https://git.example.com/docs/runbooks/")
    groups = yaml.safe_load((tmp_path / "alerts.yaml").read_text())["spec"]["groups"]
    links = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]
    assert links == [f"https://git.example.com/docs/runbooks/{alert.runbook}.md" for alert in alerts()]
    assert {path.name for path in tmp_path.iterdir()} == set(files())


@every_dashboard
def test_dashboard_has_grafanas_form(shared: Path, name: str) -> None:
    def schema(kind: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((shared / f"grafana/{kind}.jsonschema.json").read_text())
        return found

    jsonschema.Draft7Validator(schema("dashboard")).validate(dashboard(name))
    for panel in panels(name):
        kind = schema(panel["type"])
        for part, value in {
            "Options": panel.get("options", {}),
            "FieldConfig": panel.get("fieldConfig", {}).get("defaults", {}).get("custom"),
        }.items():
            if part in kind["definitions"] and value is not None:
                jsonschema.Draft7Validator(kind | {"$ref": f"#/definitions/{part}"}).validate(value)
        for target in panel["targets"]:
            jsonschema.Draft7Validator(schema("prometheus")).validate(target)


@every_dashboard
def test_every_panel_has_title_description_unit_and_the_chosen_data_source(name: str) -> None:
    for panel in panels(name):
        assert panel["title"] and re.fullmatch(r"[A-Z].+\.", panel["description"], re.DOTALL)
        unit = (
            panel["fieldConfig"]["defaults"]["unit"]
            if panel["type"] != "heatmap"
            else panel["options"]["yAxis"]["unit"]
        )
        assert unit in UNITS.values()
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


@every_dashboard
def test_panels_have_their_own_ids_and_places(name: str) -> None:
    made = dashboard(name)["panels"]
    assert len({panel["id"] for panel in made}) == len(made)
    taken = [
        (x, y)
        for panel in made
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


@every_dashboard
def test_queries_ask_for_metrics_there_are_and_take_what_is_chosen(name: str) -> None:
    variables = {item["name"] for item in dashboard(name)["templating"]["list"]}
    assert {"datasource", "model"} <= variables
    for panel in panels(name):
        for target in panel["targets"]:
            assert set(_NAME.findall(target["expr"])) <= EXPORTED
            assert 'model=~"$model"' in target["expr"]
            assert ('application=~"$deployment"' in target["expr"]) == ("deployment" in variables)
            assert set(re.findall(r"\[([^\]]+)\]", target["expr"])) <= {INTERVAL, RANGE, GAP}


@every_dashboard
def test_counters_are_asked_for_over_a_time(name: str) -> None:
    """Ray shows the counters of processes that are gone as long as their node is there."""
    behind = [
        (metric.group(1), target["expr"][metric.end() : metric.end() + 1])
        for panel in panels(name)
        for target in panel["targets"]
        for metric in re.finditer(r"\b(ray_\w+_(?:total|bucket|count|sum))\{[^}]*\}", target["expr"])
    ]
    assert behind and [found for found in behind if found[1] != "["] == []


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_alert_asks_for_metrics_there_are_and_has_a_runbook(root: Path, alert: Any) -> None:
    assert set(_NAME.findall(alert.expr)) and set(_NAME.findall(alert.expr)) <= EXPORTED | {SERVE_STATUS}
    runbook = (root / "docs/runbooks" / f"{alert.runbook}.md").read_text()
    parts = ["**What it means.**", "**How to find the cause.**", "**What to do.**"]
    assert [part for part in parts if part not in runbook] == []


def test_no_runbook_is_without_an_alert(root: Path) -> None:
    assert {path.stem for path in (root / "docs/runbooks").glob("*.md")} == {alert.runbook for alert in alerts()}


def test_panels_that_runbooks_name_are_there(root: Path) -> None:
    titles = {panel["title"] for name in DASHBOARDS for panel in panels(name)}
    texts = {path.stem: path.read_text() for path in (root / "docs/runbooks").glob("*.md")}
    named = [
        (book, panel)
        for book, text in texts.items()
        for panel in re.findall(r"\*(?:Serving|Speed-up|KV and joins|Training|Curation)\* / \*([^*]+)\*", text)
    ]
    assert named and [item for item in named if item[1] not in titles] == []


def test_rule_has_the_operators_form(shared: Path) -> None:
    rule = yaml.safe_load(files()["alerts.yaml"])
    (path,) = [path for path in (shared / "crds").rglob("*") if "prometheusrules" in path.name.lower()] or [None]
    if path is None:
        pytest.skip("no CRD of PrometheusRule")
    crd = yaml.safe_load(path.read_text())
    jsonschema.Draft7Validator(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]).validate(rule)
