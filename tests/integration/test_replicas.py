"""The Serve application with two engine replicas: branches on both, lossless joins, and a replica that is killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

QUESTION = "How do I sleep, eat and train well?"


@dataclass
class Served:
    url: str
    router: Any


@pytest.fixture(scope="module", params=[(1, None), (1, 1), (2, None)], ids=["one node", "one process", "two nodes"])
def application(request: pytest.FixtureRequest, builtin_model: Path) -> Iterator[tuple[Any, str]]:
    from multiverse.application import free_port, serving
    from multiverse.config import AppConfig

    nodes, threads = request.param
    engine = {"dtype": "float32", "enforce_eager": True, "block_size": 32, "max_model_len": 1024, "kv_cache_gib": 0.5}
    config = AppConfig.of(
        {
            "model": str(builtin_model),
            "served_name": "small",
            "replicas": 2,
            "reducers": 2,
            "placement": "spread",
            "engine": engine | {"threads": threads},
            "access": {"keys_env": "MULTIVERSE_TEST_API_KEYS"},
        }
    )
    with serving(config, port=free_port(), quiet=True, nodes=nodes) as url:
        yield config, url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(application: tuple[Any, str]) -> AsyncIterator[Served]:
    from multiverse.application import fleet_of

    config, url = application
    async with fleet_of(config) as router:
        yield Served(url, router)


async def ask(served: Served, content: str = QUESTION, **fields: Any) -> dict[str, Any]:
    body = {"model": "small", "messages": [{"role": "user", "content": content}], "temperature": 0, **fields}
    async with httpx.AsyncClient(timeout=300) as client:
        response = await client.post(f"{served.url}/chat/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def nothing_left(served: Served) -> None:
    for _ in range(60):
        await asyncio.sleep(0.5)
        stats = await served.router.engine.stats()
        if not any(stats[name] for name in ("leases", "exports", "running", "waiting")):
            return
    raise AssertionError(f"left behind: {stats}")


async def test_branches_run_on_both_replicas_and_leave_nothing(served: Served) -> None:
    answer = await ask(served, max_tokens=300, parallel={"mode": "force", "width": 4})
    (block,) = answer["parallel"]["blocks"]
    assert {branch["replica"] for branch in block["branches"]} == set(served.router.fleet.links)
    assert answer["parallel"]["x"] > 1.5
    await nothing_left(served)


async def test_joins_over_replicas_are_lossless(served: Served, reference: Any) -> None:
    from multiverse.evaluation.comparison import Comparison
    from multiverse.evaluation.free import compare_answer, generate_freely

    comparison = Comparison()
    for answer in await generate_freely(served.router.engine, concurrency=4, max_tokens=160):
        compare_answer(comparison, reference, served.router.engine, answer, "replicas")
    assert served.router.fleet.figures.pulled > 0
    assert comparison.tokens_compared >= 400
    assert comparison.unequal == []
    assert comparison.max_abs_dlogp <= 1e-4


async def test_text_reduction_answers_too(served: Served) -> None:
    answer = await ask(served, max_tokens=300, parallel={"mode": "force", "width": 2, "reduce": "text"})
    assert answer["parallel"]["reduce"] == "text"
    assert [block["width"] for block in answer["parallel"]["blocks"]] == [2]
    await nothing_left(served)


async def test_openai_client_streams_every_token_once(served: Served) -> None:
    client = openai.AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0)
    stream = await client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=200,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"parallel": {"mode": "force", "width": 3}, "return_token_ids": True},
    )
    count, usage = 0, None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            ids = (choice.model_extra or {}).get("token_ids") or []
            if ids:
                assert (choice.model_extra or {})["token_index"] == count
            count += len(ids)
    assert usage is not None
    assert usage.completion_tokens == count


@pytest.mark.parametrize("after", [0.3, 1.5])
async def test_a_killed_replica_loses_no_request_and_changes_no_text(served: Served, after: float) -> None:
    fields = {"max_tokens": 300, "parallel": {"mode": "force", "width": 4}}
    undisturbed = await ask(served, **fields)
    running = [asyncio.create_task(ask(served, **fields)) for _ in range(3)]
    await asyncio.sleep(after)
    victim = sorted(served.router.fleet.links)[0]
    os.kill(await served.router.pid(victim), signal.SIGKILL)
    texts = [answer["choices"][0]["message"]["content"] for answer in await asyncio.gather(*running)]
    assert texts == [undisturbed["choices"][0]["message"]["content"]] * 3
    for _ in range(240):
        if len(served.router.fleet.statuses) == 2:
            break
        await asyncio.sleep(0.5)
    assert victim not in served.router.fleet.links
    assert len(served.router.fleet.statuses) == 2
    await nothing_left(served)
