"""What metrics cost: CPU seconds per generated token of the same requests, with metrics and without, in turn.

One engine in this process serves two HTTP applications. One records into its own registry and, as under Ray Serve, into
Ray's agent, and is scraped; the other's meter does nothing. CPU seconds are those of this process and all below it:
vLLM's, and Ray's with its agent. (The engine keeps its step times in both: one dictionary entry per step.)
"""

import asyncio
import contextlib
import itertools
import math
import os
import random
import secrets
import statistics
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

from multiverse.config import AppConfig
from multiverse.engine.config import AFTERGLOW
from multiverse.evaluation.free import QUESTIONS
from multiverse.serving.access.access import Caller
from multiverse.serving.access.admission import Admission, AdmissionLimits
from multiverse.serving.api.http import build_asgi
from multiverse.serving.api.measure import RequestMeter, ServerMeter
from multiverse.serving.events import Event
from multiverse.serving.local import MultiverseEngine
from multiverse.telemetry.cluster import scrape
from multiverse.telemetry.engines import EngineMeter
from multiverse.telemetry.export import build_ray

LIMIT = 0.01
SCRAPE_SECONDS, HEALTH_SECONDS = 16.0, 2.0
RESAMPLES = 2000
BASE = "http://127.0.0.1"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run of all requests."""

    cpu_seconds: float
    tokens: int

    @property
    def per_token(self) -> float:
        return self.cpu_seconds / self.tokens


class NoRequestMeter(RequestMeter):
    def __init__(self) -> None: ...

    def event(self, event: Event) -> None: ...

    def failed(self) -> None: ...

    def ended(self) -> None: ...


class NoMeter(ServerMeter):
    """Takes everything and measures nothing."""

    def started(self, mode: str, key: str | None = None) -> RequestMeter:
        return NoRequestMeter()

    def waiting(self, requests: int) -> None: ...

    def admitted(self, seconds: float) -> None: ...

    def begun(self, key: str | None, prompt_tokens: int) -> None: ...

    def account(self, caller: Caller) -> None: ...

    def engine(self, stats: Mapping[str, Any]) -> None: ...


def measure_metrics(
    config: AppConfig, pairs: int, concurrency: int, max_tokens: int, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """``pairs`` runs of each kind. Needs Ray, which is started here. tell: gets a line per run."""
    import ray

    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init("local", include_dashboard=False, num_cpus=1, log_to_driver=False)
    try:
        return asyncio.run(_pairs(config, pairs, concurrency, max_tokens, tell))
    finally:
        ray.shutdown()


async def _pairs(
    config: AppConfig, pairs: int, concurrency: int, max_tokens: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    engine = await MultiverseEngine.start(await asyncio.to_thread(config.engine_config))
    try:
        recorder = build_ray(config.name)
        limits = AdmissionLimits(max_running=concurrency, max_waiting=concurrency)
        apps = {
            "on": build_asgi(engine, config.name, [recorder], admission=Admission(limits), cluster=scrape),
            "off": build_asgi(engine, config.name, admission=Admission(limits), meter=NoMeter),
        }
        costs: dict[str, list[Cost]] = {"on": [], "off": []}
        for number in range(pairs + 1):
            for kind in ("on", "off") if number % 2 else ("off", "on"):
                watched = _watched(apps[kind], EngineMeter(recorder), engine) if kind == "on" else _unwatched()
                await asyncio.sleep(AFTERGLOW)
                async with watched:
                    cost = await _run(apps[kind], config.name, concurrency, max_tokens)
                tell(f"pair {number}, {kind}: {1e3 * cost.per_token:.4f} ms of CPU per token, {cost.tokens} tokens")
                if number:  # the first ones fill the prefix cache
                    costs[kind].append(cost)
    finally:
        await engine.shutdown()
    return report(costs["on"], costs["off"]) | {"concurrency": concurrency, "max_tokens": max_tokens}


def report(on: Sequence[Cost], off: Sequence[Cost], seed: int = 0) -> dict[str, Any]:
    """The share that metrics add, and its 95 % interval by a bootstrap over the pairs."""
    ratios = [math.log(a.per_token / b.per_token) for a, b in zip(on, off, strict=True)]
    draw = random.Random(seed)
    means = sorted(statistics.fmean(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low, high = (math.expm1(means[round(share * RESAMPLES) - 1]) for share in (0.025, 0.975))
    added = math.expm1(statistics.fmean(ratios))
    return {
        "pairs": len(ratios),
        "tokens": sum(cost.tokens for cost in (*on, *off)),
        "on_cpu_ms_per_token": 1e3 * statistics.fmean(cost.per_token for cost in on),
        "off_cpu_ms_per_token": 1e3 * statistics.fmean(cost.per_token for cost in off),
        "added": added,
        "added_low": low,
        "added_high": high,
        "ok": added <= LIMIT,
    }


async def _run(app: Any, model: str, concurrency: int, max_tokens: int) -> Cost:
    """All requests at once, force and off in turn. Greedy: the same ones each time."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)), base_url=BASE) as client:
        before = _cpu_seconds()
        made = await asyncio.gather(*(_ask(client, model, number, max_tokens) for number in range(concurrency)))
        return Cost(_cpu_seconds() - before, sum(made))


async def _ask(client: httpx.AsyncClient, model: str, number: int, max_tokens: int) -> int:
    parallel = {"mode": "force", "width": 2 + number % 3} if number % 2 else {"mode": "off"}
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"{QUESTIONS[number % len(QUESTIONS)]} ({number})"}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "parallel": parallel,
    }
    response = await client.post("/v1/chat/completions", json=body, timeout=None)
    response.raise_for_status()
    tokens: int = response.json()["usage"]["completion_tokens"]
    return tokens


@contextlib.asynccontextmanager
async def _watched(app: Any, meter: EngineMeter, engine: MultiverseEngine) -> AsyncIterator[None]:
    """What a replica and a Prometheus do meanwhile."""

    async def watch() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
            for number in itertools.count(1):
                await asyncio.sleep(HEALTH_SECONDS)
                meter.take(await engine.stats())
                if number % round(SCRAPE_SECONDS / HEALTH_SECONDS) == 0:
                    (await client.get("/metrics")).raise_for_status()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def _unwatched() -> AsyncIterator[None]:
    yield


def _cpu_seconds() -> float:
    """Of this process and all that it started."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total
