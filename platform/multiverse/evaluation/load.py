"""The Serve application under load: many clients at once, and what they see when replicas are killed under them.

Closed loop: each client sends its next request when it has the answer to the last. Every chunk of a stream says which
token its first one is, so that a token lost or sent twice is seen.
"""

import asyncio
import itertools
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import openai

from multiverse.application import fleet_of, free_port, serving
from multiverse.config import AppConfig
from multiverse.evaluation.free import QUESTIONS
from multiverse.evaluation.steering import PROCESSOR
from multiverse.models.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Load:
    """clients: at the same time. kills: engine replicas that are killed, and then one reducer. cancelled: share of
    requests whose client goes before the end. modes: what requests ask for, in turn. ``auto`` of a model that is not
    trained is that of `multiverse.evaluation.steering`."""

    seconds: float = 300.0
    clients: int = 64
    kills: int = 0
    cancelled: float = 0.1
    max_tokens: int = 160
    modes: tuple[str, ...] = ("auto", "force", "off")


@dataclass(slots=True)
class Seen:
    """What the clients saw."""

    finished: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    lost_or_repeated: list[str] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    tokens: Counter[str] = field(default_factory=Counter)
    split: Counter[str] = field(default_factory=Counter)
    came: list[tuple[float, int]] = field(default_factory=list)
    """When, and how many tokens."""

    def report(self) -> dict[str, Any]:
        return {
            "finished": dict(self.finished),
            "with_a_block": dict(self.split),
            "cancelled": self.cancelled,
            "refused_429": self.refused,
            "failed": len(self.failed),
            "failures": self.failed[:10],
            "lost_or_repeated_tokens": len(self.lost_or_repeated),
            "token_errors": self.lost_or_repeated[:10],
            "first_token_p50_s": _quantile(self.first_token, 0.5),
            "first_token_p99_s": _quantile(self.first_token, 0.99),
            "between_tokens_p50_s": _quantile(self.between, 0.5),
            "between_tokens_p99_s": _quantile(self.between, 0.99),
        }


def measure_load(config: AppConfig, load: Load, nodes: int = 1) -> dict[str, Any]:
    """The whole run. ``ok``: nothing failed, was lost, sent twice, or is left."""
    config = _steered(config)
    with serving(config, port=free_port(), quiet=True, nodes=nodes) as url:
        return asyncio.run(_run(config, load, url))


def measure_throughput(config: AppConfig, load: Load, slices: int, nodes: int = 1) -> dict[str, Any]:
    """Tokens per second of requests of one mode at a time, ``off`` and ``force`` in turn, ``slices`` times each.

    What comes in the first third of a slice's time does not count. ``ok``: the median of ``force`` is not below that of
    ``off``.
    """
    with serving(config, port=free_port(), quiet=True, nodes=nodes) as url:
        return asyncio.run(_slices(config, load, url, slices))


def _steered(config: AppConfig) -> AppConfig:
    engine = config.engine_config()
    if Manifest.load(engine.model).trained:
        return config
    processors = (*config.engine.logits_processors, PROCESSOR)
    return config.model_copy(update={"engine": config.engine.model_copy(update={"logits_processors": processors})})


async def _slices(config: AppConfig, load: Load, url: str, slices: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"off": [], "force": []}
    seconds, all_seen = load.seconds / slices / len(rates), []
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        numbers = itertools.count()
        for _ in range(slices):
            for mode, values in rates.items():
                began, seen = time.monotonic(), Seen()
                await _clients(client, config.name, replace(load, modes=(mode,)), numbers, began + seconds, seen)
                warm, end = began + seconds / 3, began + seconds
                values.append(sum(count for at, count in seen.came if warm < at <= end) / (end - warm))
                all_seen.append(seen)
    off, force = (statistics.median(values) for values in rates.values())
    failures = [failure for seen in all_seen for failure in seen.failed]
    return {
        "clients": load.clients,
        "slices": slices,
        "off_tokens_per_s": off,
        "force_tokens_per_s": force,
        "ratio": force / off,
        "rates": rates,
        "failed": len(failures),
        "failures": failures[:10],
        "ok": force >= off and not failures,
    }


async def _clients(
    client: openai.AsyncOpenAI,
    model: str,
    load: Load,
    numbers: Iterator[int],
    until: float,
    seen: Seen,
    killer: "asyncio.Task[Any] | None" = None,
) -> None:
    requests = _requests(numbers, load)
    await asyncio.gather(*(_client(client, model, load, requests, until, killer, seen) for _ in range(load.clients)))


async def _run(config: AppConfig, load: Load, url: str) -> dict[str, Any]:
    seen, began = Seen(), time.monotonic()
    async with fleet_of(config) as router, openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        killer = asyncio.create_task(_kill(router, config.replicas, load.kills))
        until = began + load.seconds
        await _clients(client, config.name, load, itertools.count(), until, seen, killer)
        killed = await killer
        seconds = time.monotonic() - began
        left = await _left(router)
        stats = await router.engine.stats()
    report = seen.report() | {
        "seconds": seconds,
        "clients": load.clients,
        "tokens_per_s": sum(seen.tokens.values()) / seconds,
        "tokens": dict(seen.tokens),
        "killed_replicas": killed["engines"],
        "killed_reducers": killed["reducers"],
        "rebuilds": stats["rebuilds"],
        "preemptions": stats["preemptions"],
        "left": left,
    }
    complete = len(killed["engines"]) == load.kills and len(killed["reducers"]) == bool(load.kills)
    return report | {
        "ok": complete and not (seen.failed or seen.lost_or_repeated or any(left.values())) and bool(seen.finished)
    }


@dataclass(frozen=True, slots=True)
class _Request:
    number: int
    mode: str
    leaves_after: int | None
    """Chunks after which the client goes."""


def _requests(numbers: Iterator[int], load: Load) -> Iterator[_Request]:
    draw = random.Random(0)
    for number in numbers:
        leaves = draw.randint(1, load.max_tokens // 2) if draw.random() < load.cancelled else None
        yield _Request(number, load.modes[number % len(load.modes)], leaves)


async def _client(
    client: openai.AsyncOpenAI,
    model: str,
    load: Load,
    requests: Iterator[_Request],
    until: float,
    killer: "asyncio.Task[Any] | None",
    seen: Seen,
) -> None:
    while time.monotonic() < until or (killer is not None and not killer.done()):
        request = next(requests)
        try:
            await _ask(client, model, load, request, seen)
        except openai.RateLimitError as error:
            seen.refused += 1
            await asyncio.sleep(min(5.0, float(error.response.headers.get("retry-after", 1))))
        except Exception as error:
            seen.failed.append(f"request {request.number} ({request.mode}): {type(error).__name__}: {error}"[:300])


async def _ask(client: openai.AsyncOpenAI, model: str, load: Load, request: _Request, seen: Seen) -> None:
    parallel: dict[str, Any] = {"mode": request.mode}
    if request.mode == "force":
        parallel["width"] = 2 + request.number % 3
    begun = last = time.monotonic()
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTIONS[request.number % len(QUESTIONS)]}],
        max_tokens=load.max_tokens,
        temperature=0.7,
        seed=request.number,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"parallel": parallel, "return_token_ids": True},
    )
    count, chunks, usage, finish, tree = 0, 0, None, None, None
    async with stream:
        async for chunk in stream:
            chunks += 1
            usage = chunk.usage or usage
            tree = (chunk.model_extra or {}).get("parallel") or tree
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                ids = (choice.model_extra or {}).get("token_ids")
                if not ids:
                    continue
                now = time.monotonic()
                if count == 0:
                    seen.first_token.append(now - begun)
                else:
                    seen.between.append((now - last) / len(ids))
                last = now
                seen.came.append((now, len(ids)))
                first = (choice.model_extra or {})["token_index"]
                if first != count:
                    seen.lost_or_repeated.append(f"request {request.number}: token {first} where {count} was due")
                count = first + len(ids)
            if request.leaves_after is not None and chunks >= request.leaves_after:
                seen.cancelled += 1
                return
    if usage is None or finish is None:
        raise RuntimeError("the stream ended without a result")
    if usage.completion_tokens != count:
        seen.lost_or_repeated.append(f"request {request.number}: {count} tokens of {usage.completion_tokens} came")
    seen.finished[request.mode] += 1
    seen.tokens[request.mode] += count
    seen.split[request.mode] += bool(tree and tree["blocks"])


async def _kill(router: Any, replicas: int, kills: int) -> dict[str, list[str]]:
    """SIGKILL a random engine replica whenever all are there and answer, and once a reducer."""
    draw = random.Random(1)
    killed: dict[str, list[str]] = {"engines": [], "reducers": []}
    while len(killed["engines"]) < kills:
        await asyncio.sleep(2.0)
        links = dict(router.fleet.links)
        if len(links) < replicas or len(router.fleet.statuses) < replicas:
            continue
        victim = draw.choice(sorted(links))
        os.kill(await router.pid(victim), signal.SIGKILL)
        killed["engines"].append(victim)
        if len(killed["engines"]) == 2 or kills == 1:
            name, pid = await router.some_reducer()
            os.kill(pid, signal.SIGKILL)
            killed["reducers"].append(name)
        while victim in router.fleet.links:
            await asyncio.sleep(0.2)
    while kills and len(router.fleet.statuses) < replicas:
        await asyncio.sleep(1.0)
    return killed


async def _left(router: Any, seconds: float = 45.0) -> dict[str, int]:
    """What is held when nobody asks for anything any more; waits for what is on its way."""
    deadline = time.monotonic() + seconds
    while True:
        await asyncio.sleep(1.5)
        stats = await router.engine.stats()
        left = {name: int(stats[name]) for name in ("leases", "leased_blocks", "exports", "running", "waiting")}
        if not any(left.values()) or time.monotonic() > deadline:
            return left | {"leases_leaked": int(stats["leases_leaked"])}


def _quantile(values: Sequence[float], share: float) -> float | None:
    if len(values) < 2:
        return None
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
