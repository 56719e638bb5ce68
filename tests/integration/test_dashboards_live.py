"""Every panel and every alert against the real Prometheus, which scrapes the real application and jobs under load.

With MULTIVERSE_PICTURES=FOLDER the pictures of the dashboards go there (``make pictures``).
"""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from dashboards.alerts import alerts, prometheus_rule
from dashboards.files import DASHBOARDS, dashboard
from dashboards.pictures import draw
from dashboards.queries import SERVE_STATUS
from multiverse.application import free_port, serving
from multiverse.config import AppConfig
from multiverse.serving.access.key_file import entry
from multiverse.telemetry.cluster import agents
from tests.integration.prometheus_server import Prometheus, prometheus
from tests.integration.watched_jobs import JOBS
from tests.otlp_receiver import Receiver, receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

KEY = "mv-alice"
APP = {
    "served_name": "small",
    "replicas": 2,
    "placement": "spread",
    "engine": {"enforce_eager": True, "max_model_len": 1024, "kv_cache_gib": 0.5},
}
LOAD_SECONDS = 45.0
NOTHING_HAPPENED = {
    ("kv-joins", "Rebuilds", "{{reason}}"): "no KV is evicted or lost",
    ("kv-joins", "Under memory pressure", "spilled"): "the KV cache has room for all leases",
    ("kv-joins", "Under memory pressure", "dropped"): "the KV cache has room for all leases",
    ("kv-joins", "Under memory pressure", "preempted"): "the KV cache has room for all segments",
    ("serving", "What went wrong and was put right", "replicas lost"): "no replica dies",
    ("serving", "What went wrong and was put right", "branches retried, {{reason}}"): "no replica dies or is late",
}
"""What does not happen in a good run, by dashboard, panel and legend: such series begin when it first does."""


@dataclass(frozen=True)
class Live:
    prometheus: Prometheus
    spans: Receiver
    metrics: str
    begin: float
    end: float


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    keys = folder / "keys.yaml"
    keys.write_text(entry("alice", KEY) + "  limits: {concurrency: 8}\n")
    config = AppConfig.of(APP | {"access": {"keys_file": str(keys)}})
    with receiver() as spans, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")
        with (
            # Two nodes, each with its own agent, and a cluster that nobody else's is taken for.
            serving(config, port=free_port(), quiet=True, nodes=2) as url,
            prometheus(folder, agents(), prometheus_rule()["spec"]) as server,
        ):
            begin = time.time()
            asyncio.run(load(url))
            text = httpx.get(url.removesuffix("/v1") + "/metrics", headers={"authorization": f"Bearer {KEY}"}).text
            for name, job in JOBS.items():
                (folder / name).mkdir()
                job(folder / name)
            time.sleep(5)
            yield Live(server, spans, text, begin, time.time())


async def load(url: str) -> None:
    """Requests of all modes, one at a time and several; some that go, are refused, or have no room for a block."""
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        ends = time.monotonic() + LOAD_SECONDS
        await asyncio.gather(*(ask_until(client, mode, ends) for mode in ("off", "force", "force", "auto")))
        refused = [ask(client, "off", 100) for _ in range(12)]
        outcomes = await asyncio.gather(*refused, return_exceptions=True)
        assert any(isinstance(outcome, openai.RateLimitError) for outcome in outcomes)
        await asyncio.sleep(3)


async def ask_until(client: openai.AsyncOpenAI, mode: str, ends: float) -> None:
    await ask(client, "force", 8)  # no room for a block
    await ask(client, mode, 120, leave=True)
    while time.monotonic() < ends:
        await ask(client, mode, 250)


async def ask(client: openai.AsyncOpenAI, mode: str, max_tokens: int, leave: bool = False) -> None:
    parallel = {"mode": mode} | ({"width": 3} if mode == "force" else {})
    stream = await client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": "How do I sleep, eat and train well?"}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        extra_body={"parallel": parallel},
    )
    async with stream:
        async for _ in stream:
            if leave:
                return


def queries(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The panels of a dashboard with each of their queries."""
    for panel in dashboard(name)["panels"]:
        for target in panel.get("targets", ()):
            yield panel, target


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_shows_the_run(live: Live, name: str) -> None:
    results, shows = {}, {}
    for panel, target in queries(name):
        found = live.prometheus.series(target["expr"], live.begin, live.end)
        results[panel["id"], target["refId"]] = found
        key = (name, panel["title"], target["legendFormat"])
        shows[key] = any(value != "NaN" for one in found for _, value in one["values"])
    if folder := os.environ.get("MULTIVERSE_PICTURES"):
        draw(dashboard(name), results, Path(folder) / f"dashboard-{name}.png")
    assert [key for key, shown in shows.items() if not shown and key not in NOTHING_HAPPENED] == []
    assert {key for key in NOTHING_HAPPENED if key[0] == name} <= shows.keys()


def test_every_metric_asked_for_is_exported_as_it_is_called(live: Live) -> None:
    exported = set(live.prometheus.get("label/__name__/values"))
    asked = {
        metric
        for name in DASHBOARDS
        for panel, target in queries(name)
        if (name, panel["title"], target["legendFormat"]) not in NOTHING_HAPPENED
        for metric in re.findall(r"\bray_[a-z_]+", target["expr"])
    }
    # Counters that begin with what does not happen here: their queries show 0 without them.
    assert asked - exported <= {"ray_multiverse_leases_leaked_total", "ray_multiverse_checkpoints_total"}


def test_alerts_see_what_serve_tells_of_the_engines_and_that_the_training_finished(live: Live) -> None:
    asked = {
        SERVE_STATUS: f'{SERVE_STATUS}{{deployment="EngineReplica",application="multiverse"}}',
        "ray_multiverse_training_runs_total": 'ray_multiverse_training_runs_total{outcome="finished"}',
    }
    for metric, expr in asked.items():
        assert metric in "".join(alert.expr for alert in alerts())
        assert live.prometheus.series(expr, live.begin, live.end)


def test_every_alert_evaluates_and_none_of_a_good_run_fires(live: Live) -> None:
    groups = live.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == sum(len(group["rules"]) for group in prometheus_rule()["spec"]["groups"])
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
    for rule in rules:
        live.prometheus.get("query", query=rule["query"])


def test_speed_up_is_near_one_in_sequence_and_more_in_parallel(live: Live) -> None:
    seconds = [f"sum by (mode) (ray_multiverse_{name}_seconds_total)" for name in ("sequential", "generation")]
    expr = " / ".join(seconds)
    found = {
        one["metric"]["mode"]: float(one["values"][-1][1]) for one in live.prometheus.series(expr, live.begin, live.end)
    }
    assert 0.6 < found["off"] < 1.4
    assert found["force"] > found["off"]


def test_measured_speed_up_stays_below_its_limit_but_for_noise(live: Live) -> None:
    seconds = [f'sum(ray_multiverse_{name}_seconds_total{{mode="force"}})' for name in ("expected", "generation")]
    (share,) = live.prometheus.series(" / ".join(seconds), live.begin, live.end)
    assert 0.2 < float(share["values"][-1][1]) < 1.25


def test_ingress_gathers_the_clusters_metrics_behind_its_own(live: Live) -> None:
    assert re.search(r'^multiverse_requests_total\{mode="force",outcome="\w+"\} \d', live.metrics, re.MULTILINE)
    replicas = set(re.findall(r'^ray_multiverse_segments_running\{.*replica="([^"]+)"', live.metrics, re.MULTILINE))
    assert len(replicas) == 2


def test_trace_of_a_request_goes_through_router_replicas_and_reducer(live: Live) -> None:
    spans = live.spans
    assert spans.parents("request") == {""}
    assert spans.parents("branch") == spans.parents("join") == spans.parents("reduce") == {"request"}
    assert spans.parents("run") == {"segment"}
