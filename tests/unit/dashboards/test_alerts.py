"""When alerts fire, by Prometheus' own rule tester."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.alerts import alerts, prometheus_rule

APP = {"model": "m", "application": "a"}
MODEL = {"model": "m"}


def name(metric: str, labels: dict[str, str], **more: str) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in (labels | more).items())
    return f"ray_multiverse_{metric}{{{inside}}}"


def requests(values: str, outcome: str = "stop") -> dict[str, str]:
    return {name("requests_total", APP, mode="auto", outcome=outcome): values}


def buckets(metric: str, fast: str, slow: str) -> dict[str, str]:
    """Observations up to 1 s, and up to 50 s."""
    return {name(f"{metric}_bucket", APP, le="1"): fast, name(f"{metric}_bucket", APP, le="50"): slow} | {
        name(f"{metric}_bucket", APP, le="+Inf"): slow
    }


def speed(sequential: str, taken: str) -> dict[str, str]:
    labels = {"mode": "force", "batch": "1"}
    return {
        name("sequential_seconds_total", APP, **labels): sequential,
        name("generation_seconds_total", APP, **labels): taken,
        name("forks_total", APP): "0+1x120",
    }


# Per alert: series by minute that make it fire at the end of two hours, and similar ones that do not.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "NoReplica": ({name("replicas", APP): "2x60 0x60"}, {name("replicas", APP): "1x120"}),
    "ReplicasLost": (
        {name("replicas_lost_total", APP): "_x115 3x5"},
        {name("replicas_lost_total", APP): "3x120"},
    ),
    "RequestsFail": (
        requests("0+97x120") | requests("0+3x120", "error"),
        requests("0+99x120") | requests("0+1x120", "error"),
    ),
    "NoRoom": (
        requests("0+10x120") | {name("rejections_total", APP, reason="kv"): "0+1x120"},
        requests("0+10x120") | {name("rejections_total", APP, reason="concurrency"): "0+9x120"},
    ),
    "FirstTokenSlow": (
        buckets("first_token_seconds", "0+90x120", "0+100x120"),
        buckets("first_token_seconds", "0+100x120", "0+100x120"),
    ),
    "NoSpeedup": (speed("0+9x120", "0+10x120"), speed("0+20x120", "0+10x120")),
    "Fallbacks": (
        requests("0+10x120") | {name("fallbacks_total", APP, reason="no_plan"): "0+2x120"},
        requests("0+100x120") | {name("fallbacks_total", APP, reason="no_plan"): "0+2x120"},
    ),
    "LeasesLeaked": (
        {name("leases_leaked_total", APP): "_x110 1x10"},
        {name("leases_leaked_total", APP): "1x120"},
    ),
    "LeasesStuck": (
        {name("leases", APP): "3x120", name("requests_running", APP): "0x120"},
        {name("leases", APP): "3x120", name("requests_running", APP): "1x120"},
    ),
    "Rebuilds": (
        {name("rebuilds_total", APP, reason="evicted"): "0+2x120", name("joins_total", APP): "0+10x120"},
        {name("rebuilds_total", APP, reason="evicted"): "0+2x120", name("joins_total", APP): "0+100x120"},
    ),
    "JoinsSlow": (
        buckets("join_seconds", "0+80x120", "0+100x120"),
        buckets("join_seconds", "0+100x120", "0+100x120"),
    ),
    "KvFull": ({name("kv_usage", APP): "0.97x120"}, {name("kv_usage", APP): "0.9x120"}),
    "TrainingStalled": (
        {name("training_step", MODEL): "0+1x60 60x60", name("training_steps", MODEL): "500x120"},
        {name("training_step", MODEL): "0+1x60 60x60", name("training_steps", MODEL): "60x120"},
    ),
    "CheckpointsFail": (
        {name("checkpoints_total", MODEL, outcome="failed"): "_x100 1x20"},
        {name("checkpoints_total", MODEL, outcome="saved"): "0+1x120"},
    ),
    "CurationFails": (
        {
            name("curation_llm_calls_total", MODEL, stage="s", outcome="failed"): "0+10x120",
            name("curation_llm_calls_total", MODEL, stage="s", outcome="made"): "0+90x120",
        },
        {
            name("curation_llm_calls_total", MODEL, stage="s", outcome="failed"): "0+1x120",
            name("curation_llm_calls_total", MODEL, stage="s", outcome="made"): "0+99x120",
        },
    ),
}


SERVED = 'ray_serve_deployment_status{application="a",deployment="EngineReplica"}'
SERVE_ALONE = {"application": "a"}


def of_routers(metric: str, *values: str) -> dict[str, str]:
    """Of one router each."""
    return {name(metric, APP, replica=f"r{number}"): numbers for number, numbers in enumerate(values)}


def step(values: str, worker: str = "w") -> dict[str, str]:
    return {name("training_step", MODEL, WorkerId=worker): values}


def steps(values: str, worker: str = "w") -> dict[str, str]:
    return {name("training_steps", MODEL, WorkerId=worker): values}


def ended(values: str, outcome: str) -> dict[str, str]:
    return {name("training_runs_total", MODEL, outcome=outcome): values}


# Further situations: the alert, its series, and the labels that it fires with at the end of two hours, if it does.
SITUATIONS: dict[str, tuple[str, dict[str, str], dict[str, str] | None]] = {
    "no replica has ever come up": ("NoReplica", {SERVED: "3x120"}, SERVE_ALONE),
    "the first replica loads its model": ("NoReplica", {SERVED: "_x109 3x10"}, None),
    "replicas are there": ("NoReplica", {SERVED: "6x120", name("replicas", APP): "2x120"}, None),
    "all routers are gone": ("NoReplica", {SERVED: "6x120", name("replicas", APP): "2x100"}, SERVE_ALONE),
    "one of two routers sees replicas": ("NoReplica", of_routers("replicas", "0x120", "2x120"), None),
    "two routers lost the same two": ("ReplicasLost", of_routers("replicas_lost_total", *["0x100 2x20"] * 2), None),
    "two routers lost the same three": ("ReplicasLost", of_routers("replicas_lost_total", *["0x100 3x20"] * 2), APP),
    "a counter of long ago was not scraped for a while": (
        "LeasesLeaked",
        {name("leases_leaked_total", APP): "1x50 _x10 1x60"},
        None,
    ),
    "a counter of long ago is gone since": ("LeasesLeaked", {name("leases_leaked_total", APP): "1x59"}, None),
    "leases leaked, and the engine is gone": ("LeasesLeaked", {name("leases_leaked_total", APP): "_x80 1x20"}, APP),
    "a run crashed": ("TrainingStalled", step("0+1x80") | steps("500x80"), MODEL),
    "a run has failed": ("TrainingStalled", step("0+1x80") | steps("500x80") | ended("_x82 1x37", "failed"), MODEL),
    "a run waits for nodes after it was started again": (
        "TrainingStalled",
        step("0+1x60") | steps("500x60") | step("_x65 50+1x20", "again") | steps("_x65 500x20", "again"),
        MODEL,
    ),
    "a run was started again and goes on": (
        "TrainingStalled",
        step("0+1x60") | steps("500x60") | step("_x65 50+1x55", "again") | steps("_x65 500x55", "again"),
        None,
    ),
    "a run goes on": ("TrainingStalled", step("0+1x120") | steps("500x120"), None),
    "a run has begun": ("TrainingStalled", step("_x110 0x9") | steps("_x110 500x9"), None),
    "a run finished, and its last step was not scraped": (
        "TrainingStalled",
        step("0+1x80") | steps("82x80") | ended("_x82 1x37", "finished"),
        None,
    ),
    "a run's time was over": (
        "TrainingStalled",
        step("0+1x80") | steps("500x80") | ended("_x82 1x37", "stopped"),
        None,
    ),
    "a run crashed, and another one finished long ago": (
        "TrainingStalled",
        step("_x20 0+1x60") | steps("_x20 500x60") | ended("_x10 1x109", "finished"),
        MODEL,
    ),
}


def fires(folder: Path, alert: str, values: dict[str, str], labels: dict[str, str]) -> bool:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    (rule,) = [found for found in alerts() if found.name == f"Multiverse{alert}"]
    expected = [{"exp_labels": labels | {"severity": rule.severity}}]
    inputs = [{"series": series, "values": numbers} for series, numbers in values.items()]
    tests = [{"interval": "1m", "input_series": inputs, "alert_rule_test": []}]
    # Only labels are compared: what a summary says of the value is not.
    bare: dict[str, Any] = yaml.safe_load(yaml.safe_dump(prometheus_rule()["spec"]))
    for group in bare["groups"]:
        for one in group["rules"]:
            del one["annotations"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(bare))

    def passes(alerts: list[dict[str, Any]]) -> bool:
        tests[0]["alert_rule_test"] = [{"eval_time": "119m", "alertname": rule.name, "exp_alerts": alerts}]
        (folder / "test.yaml").write_text(
            yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
        )
        return not subprocess.run([program, "test", "rules", folder / "test.yaml"], capture_output=True).returncode

    fired, silent = passes(expected), passes([])
    assert fired != silent, "it fires with other labels than it should"
    return fired


def labels_of(alert: str) -> dict[str, str]:
    return MODEL if alert in ("TrainingStalled", "CheckpointsFail", "CurationFails") else APP


def test_every_alert_has_its_case() -> None:
    assert {f"Multiverse{name}" for name in CASES} == {alert.name for alert in alerts()}


@pytest.mark.parametrize("alert", CASES)
def test_alert_fires_when_it_should(tmp_path: Path, alert: str) -> None:
    assert fires(tmp_path, alert, CASES[alert][0], labels_of(alert))


@pytest.mark.parametrize("alert", CASES)
def test_alert_is_silent_when_all_is_well(tmp_path: Path, alert: str) -> None:
    assert not fires(tmp_path, alert, CASES[alert][1], labels_of(alert))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_alert_fires_in_this_situation_or_is_silent(tmp_path: Path, situation: str) -> None:
    alert, values, labels = SITUATIONS[situation]
    assert fires(tmp_path, alert, values, labels or labels_of(alert)) == (labels is not None)
