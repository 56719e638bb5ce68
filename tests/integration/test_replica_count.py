"""The number of engine replicas in the metrics of a served application that nobody sends a request."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dashboards.queries import SERVE_STATUS
from multiverse.application import fleet_of, free_port, serving
from multiverse.config import AppConfig
from multiverse.telemetry.cluster import scrape

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

CONFIG = AppConfig.of(
    {"served_name": "small", "engine": {"enforce_eager": True, "max_model_len": 512, "kv_cache_gib": 0.5}}
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with serving(CONFIG, port=free_port(), quiet=True) as url:
            yield url


def values(name: str, **labels: str) -> list[float]:
    """Of a metric's series in the cluster."""
    samples = [sample for family in text_string_to_metric_families(scrape().decode()) for sample in family.samples]
    return [one.value for one in samples if one.name == name and labels.items() <= one.labels.items()]


def wait_for(replicas: float, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := values("ray_multiverse_replicas")) != [replicas]:
        assert time.monotonic() < deadline, f"{found} replicas"
        time.sleep(0.5)


async def kill_engine() -> None:
    async with fleet_of(CONFIG) as router:
        (replica,) = router.fleet.links
        os.kill(await router.pid(replica), signal.SIGKILL)


def test_replicas_that_come_and_go_are_counted_without_requests(url: str) -> None:
    wait_for(1, 30)
    assert values(SERVE_STATUS, application="multiverse", deployment="EngineReplica") == [6]
    asyncio.run(kill_engine())
    wait_for(0, 30)
    assert httpx.get(url.removesuffix("/v1") + "/metrics").status_code == 200
    wait_for(1, 300)
