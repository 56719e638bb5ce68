"""Requests on real vLLM: structure, log-probabilities against the layout's forward, fallbacks, chats, seeds."""

import asyncio
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

from multiverse.serving.events import BlockForked, BlockJoined, BranchFinished, FellBack
from multiverse.structure.grammar import parse

if TYPE_CHECKING:
    from multiverse.engine.config import EngineConfig
    from tests.integration.engine_harness import Harness

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

LOSSLESS = 1e-4
"""Largest |difference of log-probabilities| in float32."""
QUESTION = "Name a fruit and a colour."


def goal(*outlines: str) -> str:
    inner = "".join(f"<Outline>\n{outline}\n</Outline>\n" for outline in outlines)
    return f"<Parallel>\n<Goal>\n{inner}</Goal>"


TWO = goal("1: a fruit", "2: a colour")
FRUIT, COLOUR = " An apple is a fruit.\n</Path>", " Blue is the colour of a clear sky at noon.\n</Path>"
CONCLUDED = " An apple and blue.\n</Conclusion>\n</Parallel>"
ONE_BLOCK = {
    "": TWO,
    "\n<Path>\n1:": FRUIT,
    "\n<Path>\n2:": COLOUR,
    "\n<Conclusion>": CONCLUDED,
    CONCLUDED: " These are the two.<end>",
}
ANSWER = f"{TWO}\n<Path>\n1:{FRUIT}\n<Path>\n2:{COLOUR}\n<Conclusion>{CONCLUDED} These are the two."


async def test_scripted_block_is_the_answer_and_parses(engine: "Harness") -> None:
    prompt = engine.chat(QUESTION)
    engine.dictate(prompt, ONE_BLOCK)
    run = await engine.run(prompt, mode="auto")
    assert run.text == ANSWER
    (block, _) = parse(run.text).body
    assert [outline.number for outline in block.outlines] == ["1", "2"]  # type: ignore[union-attr]
    assert (run.result.finish, run.result.fallbacks) == ("stop", ())
    assert [branch.finish for branch in run.result.blocks[0].branches] == ["stop", "stop"]


async def test_a_block_tells_fork_branches_and_join(engine: "Harness") -> None:
    prompt = engine.chat(QUESTION)
    engine.dictate(prompt, ONE_BLOCK)
    run = await engine.run(prompt, mode="auto")
    assert run.of(BlockForked) == [BlockForked((), 1, ("1: a fruit", "2: a colour"))]
    ended = [event for event in run.events if isinstance(event, BranchFinished)]
    assert sorted((event.place, event.finish) for event in ended) == [(((1, 1),), "stop"), (((1, 2),), "stop")]
    joined = [event for event in run.events if isinstance(event, BlockJoined)]
    assert [(event.place, event.block) for event in joined] == [((), 1)]
    assert run.of(FellBack) == []


async def test_a_block_is_lossless(engine: "Harness") -> None:
    prompt = engine.chat(QUESTION)
    engine.dictate(prompt, ONE_BLOCK)
    comparison = engine.compared(await engine.run(prompt, mode="auto"))
    assert comparison.tokens_compared >= 40
    assert comparison.max_abs_dlogp <= LOSSLESS


async def test_nested_block_is_lossless(engine: "Harness") -> None:
    prompt = engine.chat(QUESTION)
    inner = goal("1.1: red fruit", "1.2: green fruit")
    nested = {
        "": TWO,
        "\n<Path>\n1:": f" First\n{inner}",
        "\n<Path>\n1.1:": " The cherry is red.</Path>",
        "\n<Path>\n1.2:": " A lime.</Path>",
        "\n<Conclusion>": " Both.\n</Conclusion>\n</Parallel> So a cherry.\n</Path>",
        "\n<Path>\n2:": COLOUR,
        f"\n<Path>\n2:{COLOUR}\n<Conclusion>": f"{CONCLUDED} These are the two.<end>",
    }
    engine.dictate(prompt, nested)
    run = await engine.run(prompt, mode="auto")
    assert run.text == (
        f"{TWO}\n<Path>\n1: First\n{inner}\n<Path>\n1.1: The cherry is red.</Path>\n<Path>\n1.2: A lime.</Path>\n"
        "<Conclusion> Both.\n</Conclusion>\n</Parallel> So a cherry.\n</Path>"
        f"\n<Path>\n2:{COLOUR}\n<Conclusion>{CONCLUDED} These are the two."
    )
    parse(run.text)
    comparison = engine.compared(run)
    assert comparison.tokens_compared >= 60
    assert comparison.max_abs_dlogp <= LOSSLESS


async def test_second_block_behind_a_joined_one_is_lossless(engine: "Harness") -> None:
    prompt = engine.chat(QUESTION)
    again = goal("1: a tree", "2: a bird", "3: a fish")
    engine.dictate(
        prompt,
        {
            **ONE_BLOCK,
            CONCLUDED: f" And more:\n{again}",
            f"{again}\n<Path>\n1:": " The oak.</Path>",
            f"{again}\n<Path>\n2:": " A robin sings.</Path>",
            f"{again}\n<Path>\n3:": " The trout</Path>",
            " The trout</Path>\n<Conclusion>": " Three more.\n</Conclusion>\n</Parallel> All said.<end>",
        },
    )
    run = await engine.run(prompt, mode="auto")
    assert [len(block.branches) for block in run.result.blocks] == [2, 3]
    assert run.text.endswith("<Conclusion> Three more.\n</Conclusion>\n</Parallel> All said.")
    parse(run.text)
    comparison = engine.compared(run)
    assert comparison.tokens_compared >= 70
    assert comparison.max_abs_dlogp <= LOSSLESS


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("<Parallel>\n<Goal>\n</Goal>", "no_outlines"),
        ("<Parallel> no", "no_goal"),
        ("Well </Goal>", "stray_tag"),
    ],
)
async def test_malformed_structure_goes_on_as_text(engine: "Harness", written: str, reason: str) -> None:
    prompt = engine.chat(QUESTION)
    engine.dictate(prompt, {"": written, written: " then text<Parallel>"})
    run = await engine.run(prompt, max_tokens=24, mode="auto")
    assert run.of(FellBack) == [FellBack((), reason)]
    assert run.result.fallbacks == (reason,)
    assert run.text.startswith(f"{written} then text")
    assert run.text.count("<Parallel>") == written.count("<Parallel>")
    assert engine.compared(run).max_abs_dlogp <= LOSSLESS


async def test_forced_block_has_its_width_and_is_lossless(engine: "Harness") -> None:
    question = "How do I sleep, eat and train well?"
    run = await engine.run(engine.chat(question), max_tokens=240, mode="force", width=3, question=question)
    assert [len(block.branches) for block in run.result.blocks] == [3]
    assert run.result.fallbacks == ()
    parse(run.text)
    comparison = engine.compared(run)
    assert comparison.unequal == []
    assert comparison.tokens_compared >= 100
    assert comparison.max_abs_dlogp <= LOSSLESS


async def test_off_is_the_models_own_greedy_text(engine: "Harness") -> None:
    prompt = engine.chat("Write a long story about a lighthouse.")
    run = await engine.run(prompt, max_tokens=16, mode="off")
    plain = engine.reference.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)
    assert run.result.tokens == tuple(plain[0, len(prompt) :].tolist())
    assert (run.result.blocks, run.result.parallelism) == ((), 1.0)


async def test_earlier_turn_with_a_block_is_rebuilt_once_then_cached(engine: "Harness") -> None:
    prompt = engine.chat(
        "Name a fruit and a colour, please.",
        ANSWER,
        "Thank you. Now say which of these two things a painter would need first, the fruit or the colour, and say in "
        "one short sentence why you think that it is so and not the other way round.",
    )
    stats = engine.engine.segments.stats
    before = sum(stats.rebuilds.values())
    first = await engine.run(prompt, max_tokens=16, mode="auto")
    rebuilt, hits = sum(stats.rebuilds.values()), stats.prefix_cache_hits
    second = await engine.run(prompt, max_tokens=16, mode="auto")
    assert rebuilt > before
    assert sum(stats.rebuilds.values()) == rebuilt
    assert stats.prefix_cache_hits - hits >= len(prompt) - 2 * 32
    assert second.result.tokens == first.result.tokens
    for run in (first, second):
        assert engine.compared(run).max_abs_dlogp <= LOSSLESS


async def test_seed_makes_a_request_reproducible(engine: "Harness") -> None:
    async def sampled(seed: int) -> tuple[int, ...]:
        options: dict[str, Any] = {"mode": "force", "width": 2, "question": QUESTION, "temperature": 1.0}
        return (await engine.run(engine.chat(QUESTION), max_tokens=120, seed=seed, **options)).result.tokens

    first, again, other = await sampled(1), await sampled(1), await sampled(2)
    assert first == again
    assert first != other


async def test_seeded_requests_that_fill_a_step_leave_the_engine_alive(engine: "Harness") -> None:
    """vLLM's own generators for seeds cannot be rewound on a CPU, which it tries when a prompt takes several steps."""
    prompts = [engine.chat(f"{number} " * 700) for number in range(2, 8)]
    assert sum(map(len, prompts)) > 2 * engine.engine.segments.config.max_num_batched_tokens
    runs = [engine.run(prompt, max_tokens=4, mode="off", temperature=0.8, seed=3) for prompt in prompts]
    assert all(run.result.finish in ("stop", "length") for run in await asyncio.gather(*runs))
    assert (await engine.run(prompts[0], max_tokens=4, mode="off")).result.finish in ("stop", "length")


async def test_the_worker_computes_with_intels_openmp(engine: "Harness") -> None:
    maps = [Path(f"/proc/{worker.pid}/maps").read_text() for worker in workers()]
    assert maps
    assert all("libiomp5.so" in loaded for loaded in maps)


def workers() -> list[psutil.Process]:
    """vLLM's, of this process."""
    return [child for child in psutil.Process().children(recursive=True) if child.name().startswith("VLLM::Worker")]


async def test_self_test_passes_on_a_used_engine(engine: "Harness") -> None:
    from multiverse.engine.self_test import self_test

    assert await self_test(engine.engine.segments) <= LOSSLESS


async def test_self_test_refuses_an_engine_that_is_off(engine: "Harness", monkeypatch: pytest.MonkeyPatch) -> None:
    from multiverse.engine.self_test import TOLERANCE, SelfTestError, self_test

    monkeypatch.setitem(TOLERANCE, "float32", 1e-9)
    with pytest.raises(SelfTestError, match=r"log-probabilities differ by .* from the layout's forward"):
        await self_test(engine.engine.segments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline parallelism"),
        ({"scheduling_policy": "fcfs"}, "FCFS scheduling"),
        ({"enable_prefix_caching": False}, "a disabled prefix cache"),
        ({"kv_cache_dtype": "fp8"}, "a quantized KV cache"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative decoding"),
    ],
)
async def test_settings_that_merging_cannot_bear_are_refused(
    engine_config: "EngineConfig", script: object, arguments: dict[str, Any], reason: str
) -> None:
    from dataclasses import replace

    from multiverse.engine.arena import Arena
    from multiverse.engine.vllm_setup import start_vllm

    preloaded = os.environ.get("LD_PRELOAD")
    with closing(Arena(1, 2**20)) as arena, pytest.raises(ValueError, match=f"does not work with {reason}"):
        start_vllm(replace(engine_config, vllm=arguments), None, arena)
    assert os.environ.get("LD_PRELOAD") == preloaded  # vLLM puts GNU's OpenMP there where nothing else is
