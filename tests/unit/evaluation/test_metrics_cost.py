"""The figures of what metrics cost."""

import httpx
import pytest

from multiverse.evaluation.metrics_cost import Cost, NoMeter, report
from multiverse.serving.api.http import build_asgi
from tests.unit.serving.http_fakes import FakeEngine, block_of_two


def test_share_that_is_added_is_that_of_cpu_per_token() -> None:
    on, off = [Cost(1.8, 0.24, 200), Cost(0.9, 0.12, 100)], [Cost(0.9, 0.1, 100), Cost(1.8, 0.2, 200)]
    found = report(on, off)
    assert (found["added"], found["added_all"]) == (pytest.approx(0.02), pytest.approx(0.02))
    assert (found["added_low"], found["added_high"]) == (pytest.approx(0.02), pytest.approx(0.02))
    assert not found["ok"]
    assert found["on_cpu_ms_per_token"] == pytest.approx(10.2)


def test_interval_is_as_wide_as_the_pairs_differ() -> None:
    off = [Cost(0.9, 0.1, 100)] * 20
    on = [Cost(0.9, 0.1 + 0.1 * (-1) ** number, 100) for number in range(20)]
    found = report(on, off)
    assert found["added_low"] < -0.02 < 0.02 < found["added_high"]
    assert not found["ok"]


def test_what_the_engine_takes_counts_in_one_of_the_two_alone() -> None:
    found = report([Cost(1.2, 0.101, 100)], [Cost(0.9, 0.1, 100)])
    assert (found["added"], found["added_all"]) == (pytest.approx(0.001), pytest.approx(0.301))
    assert found["ok"]


async def test_application_answers_without_metrics() -> None:
    engine = FakeEngine(lambda _: block_of_two(engine.tokens))
    app = build_asgi(engine, "tiny", meter=NoMeter)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}]}
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.json()["usage"]["completion_tokens"] > 0
