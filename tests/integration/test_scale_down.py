"""Engine replicas come and go with the load, under streams that lose nothing by it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

QUESTIONS = ("How do I sleep, eat and train well?", "What should a good bread recipe say?")


@pytest.fixture(scope="module")
def url(builtin_model: Path) -> Iterator[str]:
    from multiverse.application import free_port, serving
    from multiverse.config import AppConfig

    config = AppConfig.of(
        {
            "model": str(builtin_model),
            "served_name": "small",
            "replicas": 1,
            "replicas_per_node": 2,
            "placement": "spread",
            "autoscaling": {
                "min_replicas": 1,
                "max_replicas": 2,
                "target_segments": 7,
                "upscale_seconds": 1,
                "downscale_seconds": 5,
            },
            "engine": {
                "dtype": "float32",
                "enforce_eager": True,
                "block_size": 32,
                "max_model_len": 1024,
                "kv_cache_gib": 0.5,
            },
            "access": {"keys_env": "MULTIVERSE_TEST_API_KEYS"},
        }
    )
    with serving(config, port=free_port(), quiet=True) as url:
        yield url


@dataclass(frozen=True)
class Answer:
    question: str
    max_tokens: int
    tokens: tuple[int, ...]
    replicas: frozenset[str]
    begun: float
    ended: float


async def ask(client: openai.AsyncOpenAI, question: str, max_tokens: int) -> Answer:
    """One streamed answer; its tokens come once each, in their order."""
    begun = time.monotonic()
    stream = await client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": question}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"parallel": {"mode": "force", "width": 3}, "return_token_ids": True},
    )
    tokens: list[int] = []
    usage, finish, blocks = None, None, list[dict[str, Any]]()
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            extra = choice.model_extra or {}
            if extra.get("token_ids"):
                assert extra["token_index"] == len(tokens)
                tokens += extra["token_ids"]
        blocks = (chunk.model_extra or {}).get("parallel", {}).get("blocks", blocks)
    assert finish is not None
    assert usage is not None
    assert usage.completion_tokens == len(tokens)
    replicas = {branch["replica"] for block in blocks for branch in block["branches"]}
    return Answer(question, max_tokens, tuple(tokens), frozenset(replicas), begun, time.monotonic())


def replicas() -> dict[str, int]:
    """Engine replicas by their state."""
    from ray import serve

    deployments = serve.status().applications["multiverse"].deployments
    return {str(state): count for state, count in deployments["EngineReplica"].replica_states.items()}


async def under_load(
    url: str, clients: int, max_tokens: int, until: Callable[[list[Answer]], bool], seconds: float
) -> tuple[list[Answer], float]:
    """Clients that ask one question after the other until something is so; their answers, and when it was."""
    answers: list[Answer] = []
    deadline, reached = time.monotonic() + seconds, asyncio.Event()

    async def client(number: int, sender: openai.AsyncOpenAI) -> None:
        await asyncio.sleep(2.0 * number)
        while not reached.is_set():
            answers.append(await ask(sender, QUESTIONS[number % len(QUESTIONS)], max_tokens))

    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=300) as sender:
        running = [asyncio.create_task(client(number, sender)) for number in range(clients)]
        while not until(answers):
            assert time.monotonic() < deadline, f"not within {seconds:g} s; replicas: {replicas()}"
            for task in running:
                if task.done():
                    task.result()
            await asyncio.sleep(0.25)
        at = time.monotonic()
        reached.set()
        await asyncio.gather(*running)
    return answers, at


async def test_scaled_up_and_down_again_under_streams_nothing_is_lost(url: str) -> None:
    # Six requests of three branches are more than one replica is meant to have: another one comes and takes branches.
    up, _ = await under_load(url, 6, 160, lambda answers: any(len(it.replicas) == 2 for it in answers), 220)
    # Two are fewer: it is stopped under them.
    before, stopped = await under_load(url, 2, 400, lambda _: replicas() != {"RUNNING": 2}, 120)
    after, _ = await under_load(url, 2, 400, lambda _: replicas() == {"RUNNING": 1}, 120)
    assert any(len(it.replicas) == 2 for it in before if it.begun < stopped < it.ended)
    # Greedy answers to the same question are the same, wherever their branches ran and however often these moved.
    texts = {(it.question, it.max_tokens, it.tokens) for it in (*up, *before, *after)}
    assert len(texts) == 2 * len(QUESTIONS)
