"""What metrics cost: CPU seconds per generated token of the same requests, with metrics and without, in turn.

One engine in this process serves two HTTP applications. One records into its own registry and, as under Ray Serve, into
Ray's agent, and is scraped; the other's meter does nothing. CPU seconds are those of this process and all below it:
vLLM's, and Ray's with its agent. (The engine keeps its step times in both: one dictionary entry per step.)

vLLM's processes do the same work in both, and what they take for it swings with the machine by far more than metrics
cost. ``added`` therefore counts what this process and Ray's take more with metrics, as a share of what all take
without. ``added_all`` is the same with vLLM's processes in it, whose interval says how little one run of that tells.
"""

import asyncio
import contextlib
import itertools
import os
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
from multiverse.evaluation.statistics import mean
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
ENGINE = "VLLM::"
"""How the names of vLLM's processes begin."""
BASE = "http://127.0.0.1"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run of all requests. engine, rest: CPU seconds of vLLM's processes, and of all others."""

    engine: float
    rest: float
    tokens: int

    @property
    def per_token(self) -> float:
        return (self.engine + self.rest) / self.tokens


class NoRequestMeter(RequestMeter):
    def __init__(self) -> None:
        self.gain = None

    def event(self, event: Event) -> None: ...

    def refused(self) -> None: ...

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
                tell(
                    f"pair {number}, {kind}: {1e3 * cost.per_token:.4f} ms of CPU per token, "
                    f"{1e3 * cost.rest / cost.tokens:.4f} of them not vLLM's, {cost.tokens} tokens"
                )
                if number:  # the first ones fill the prefix cache
                    costs[kind].append(cost)
    finally:
        await engine.shutdown()
    return report(costs["on"], costs["off"]) | {"concurrency": concurrency, "max_tokens": max_tokens}


def report(on: Sequence[Cost], off: Sequence[Cost], seed: int = 0) -> dict[str, Any]:
    """The shares that metrics add, and their 95 % intervals by a bootstrap over the pairs. ok: all of that of ``added``
    is within the limit."""
    whole = statistics.fmean(cost.per_token for cost in off)
    pairs = list(zip(on, off, strict=True))
    shares = {
        "added": [(a.rest / a.tokens - b.rest / b.tokens) / whole for a, b in pairs],
        "added_all": [(a.per_token - b.per_token) / whole for a, b in pairs],
    }
    values: dict[str, Any] = {
        "pairs": len(pairs),
        "tokens": sum(cost.tokens for cost in (*on, *off)),
        "on_cpu_ms_per_token": 1e3 * statistics.fmean(cost.per_token for cost in on),
        "off_cpu_ms_per_token": 1e3 * whole,
        "off_rest_ms_per_token": 1e3 * statistics.fmean(cost.rest / cost.tokens for cost in off),
    }
    for name, found in shares.items():
        share = mean(found, seed)
        values |= {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}
    return values | {"ok": values["added_high"] <= LIMIT}


async def _run(app: Any, model: str, concurrency: int, max_tokens: int) -> Cost:
    """All requests at once, force and off in turn. Greedy: the same ones each time."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)), base_url=BASE) as client:
        engine, rest = _cpu_seconds()
        made = await asyncio.gather(*(_ask(client, model, number, max_tokens) for number in range(concurrency)))
        engine_after, rest_after = _cpu_seconds()
        return Cost(engine_after - engine, rest_after - rest, sum(made))


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


def _cpu_seconds() -> tuple[float, float]:
    """Of vLLM's processes, and of this one and all others that it started."""
    own = psutil.Process()
    engine, rest = 0.0, 0.0
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times, name = process.cpu_times(), process.name()
            if name.startswith(ENGINE):
                engine += times.user + times.system
            else:
                rest += times.user + times.system
    if not engine:
        raise RuntimeError(f"no process below this one is called {ENGINE}: the engine's cannot be told from others")
    return engine, rest
