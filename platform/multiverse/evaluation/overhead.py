"""What routers, Serve and HTTP add to a request at batch 1: the same one over HTTP and on an engine called directly."""

import asyncio
import statistics
import time
from typing import Any

import openai

from multiverse.application import free_port, serving
from multiverse.config import AppConfig
from multiverse.engine.config import AFTERGLOW
from multiverse.engine.segment import Sampling
from multiverse.evaluation.free import QUESTIONS
from multiverse.serving.local import MultiverseEngine
from multiverse.serving.request import GenerationRequest

TOKENS = 128


def measure_overhead(config: AppConfig, pairs: int) -> dict[str, Any]:
    """Medians over interleaved pairs. Both engines have the same settings, and only one of them runs at a time."""
    with serving(config, port=free_port(), quiet=True) as url:
        return asyncio.run(_pairs(config, pairs, url))


async def _pairs(config: AppConfig, pairs: int, url: str) -> dict[str, Any]:
    engine = await MultiverseEngine.start(await asyncio.to_thread(config.engine_config))
    http, direct = [], []
    try:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            for number in range(pairs + 2):
                question = f"{QUESTIONS[number % len(QUESTIONS)]} ({number})"
                await asyncio.sleep(AFTERGLOW)
                over = await _over_http(client, config.name, question)
                await asyncio.sleep(AFTERGLOW)
                straight = await _straight(engine, question, number)
                if number >= 2:  # the first ones are slower on either side
                    http.append(over)
                    direct.append(straight)
    finally:
        await engine.shutdown()
    ratio = statistics.median(a / b for a, b in zip(http, direct, strict=True))
    return {
        "pairs": pairs,
        "tokens": TOKENS,
        "http_s": statistics.median(http),
        "direct_s": statistics.median(direct),
        "ratio": ratio,
        "ok": ratio <= 1.10,
    }


async def _over_http(client: openai.AsyncOpenAI, model: str, question: str) -> float:
    begun = time.perf_counter()
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=TOKENS,
        temperature=0,
        stream=True,
        extra_body={"parallel": {"mode": "off"}, "min_tokens": TOKENS},
    )
    async for _ in stream:
        pass
    return time.perf_counter() - begun


async def _straight(engine: MultiverseEngine, question: str, number: int) -> float:
    begun = time.perf_counter()
    prompt = tuple(engine.tokens.chat([{"role": "user", "content": question}]))
    sampling = Sampling(TOKENS, temperature=0.0, min_tokens=TOKENS)
    async for _ in engine.generate(GenerationRequest(f"direct-{number}", prompt, sampling, arrival=number)):
        pass
    return time.perf_counter() - begun
