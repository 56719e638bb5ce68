"""What a real engine holds when requests are cancelled, fail to fit or simply end: nothing."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from multiverse.engine.config import EngineConfig
    from multiverse.serving.request import GenerationRequest
    from tests.integration.engine_harness import Harness

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

PLAN = ("1: a fruit", "2: a colour", "3: a tool")
GOAL = "<Parallel>\n<Goal>\n" + "".join(f"<Outline>\n{line}\n</Outline>\n" for line in PLAN) + "</Goal>"
BLOCK = {
    "": GOAL,
    "\n<Path>\n1:": " An apple.</Path>",
    "\n<Path>\n2:": " Blue, the colour of a clear sky.</Path>",
    "\n<Path>\n3:": " A hammer and a nail.</Path>",
    "\n<Conclusion>": " Done.\n</Conclusion>\n</Parallel> So it is.<end>",
}
QUESTION = "Name a fruit, a colour and a tool."


@pytest.mark.parametrize("after", [1, 3, 4, 9, 16, 25])
async def test_cancelled_request_gives_everything_back(engine: "Harness", after: int) -> None:
    prompt = engine.chat(QUESTION)
    free = await engine.holdings()
    engine.dictate(prompt, BLOCK)
    await engine.cancel(engine.request(prompt, mode="auto"), after)
    assert free[:2] == (0, 0)
    assert await engine.holds(free) == free


async def test_request_whose_reader_is_cancelled_gives_everything_back(engine: "Harness") -> None:
    prompt = engine.chat(QUESTION)
    free = await engine.holdings()
    engine.dictate(prompt, BLOCK)
    task = asyncio.create_task(engine.run(prompt, mode="auto"))
    await asyncio.sleep(0.7)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await engine.holds(free) == free


@pytest.mark.parametrize("count", [40, 500])
async def test_mixed_requests_leave_nothing(engine: "Harness", count: int) -> None:
    from tests.integration.engine_harness import shared_memory

    draw = random.Random(count)
    prompt = engine.chat(QUESTION)
    free, tasks, mapped = await engine.holdings(), asyncio.all_tasks(), shared_memory()
    engine.dictate(prompt, BLOCK)
    requests = [mixed(engine, prompt, number) for number in range(count)]
    gate, finished = asyncio.Semaphore(16), 0

    async def one(request: "GenerationRequest", cancelled: bool) -> None:
        nonlocal finished
        async with gate:
            await engine.cancel(request, draw.randint(1, 30) if cancelled else -1)
            finished += 1

    await asyncio.gather(*(one(request, number % 3 == 0) for number, request in enumerate(requests)))
    assert finished == count
    assert await engine.holds(free) == free
    assert asyncio.all_tasks() == tasks
    assert shared_memory() == mapped


def mixed(engine: "Harness", prompt: tuple[int, ...], number: int) -> "GenerationRequest":
    """In turn sequential, with a block of the model's own (of one branch at a time, too), cut short, and forced."""
    kinds: list[dict[str, Any]] = [
        {"mode": "off", "max_tokens": 8},
        {"mode": "auto"},
        {"mode": "auto", "max_width": 1},
        {"mode": "auto", "max_tokens": 70},
        {"mode": "auto", "temperature": 1.0, "seed": number},
    ]
    if number % 20 == 7:
        return engine.request(prompt, mode="force", width=2, max_tokens=60, question=QUESTION)
    return engine.request(prompt, **kinds[number % len(kinds)])


async def test_small_cache_preempts_and_spills_and_stays_lossless(
    engine_config: "EngineConfig", reference: Any, script: Path
) -> None:
    from multiverse.engine.vllm_engine import VllmEngine
    from multiverse.evaluation.comparison import Comparison, banned_ids
    from multiverse.evaluation.documents import border_documents
    from multiverse.evaluation.lossless import compare, replay, small_cache
    from multiverse.evaluation.replay import Document
    from multiverse.models.manifest import Manifest
    from tests.integration.engine_harness import shared_memory, vllm_processes

    vocabulary = Manifest.load(engine_config.model).vocabulary()
    made = border_documents(vocabulary, block_size=32)
    names = ("border-1", "border+1", "nested", "width-8")
    documents = [Document.of(name, made[name], vocabulary, header=3) for name in names]
    config = small_cache(replace(engine_config, self_test=False), max(len(made[name]) for name in names))
    processes, mapped = vllm_processes(), shared_memory()

    engine = await VllmEngine.start(config)
    try:
        results = await replay(engine, documents, concurrency=16, tenant="small", run="small")
        stats, files = engine.stats, shared_memory() - mapped
    finally:
        engine.shutdown()

    comparison = Comparison()
    for document, replayed in zip(documents, results, strict=True):
        compare(comparison, reference, document, replayed, banned_ids(engine.manifest, engine.end_ids), "small cache")
    assert comparison.tokens_compared == 32 * sum(len(document.probes) for document in documents)
    assert comparison.unequal == []
    assert comparison.max_abs_dlogp <= 1e-4
    assert min(stats.preemptions, stats.lease_spills, sum(stats.rebuilds.values())) > 0
    assert stats.leases == 0
    assert vllm_processes() == processes
    assert [file for file in files if Path(file).exists()] == []
