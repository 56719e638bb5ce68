"""Start-up self-test: one three-branch join through vLLM against the layout's forward in transformers.

A vLLM upgrade that changes a cache layout or a positions interface would otherwise give wrong text silently.
"""

import asyncio
import random
from typing import TYPE_CHECKING

from multiverse.engine.segment import Sampling, Segment, Source
from multiverse.structure.layout import layout

if TYPE_CHECKING:
    from multiverse.engine.vllm_engine import VllmEngine

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.35, "float16": 0.1}
"""Largest accepted |difference of log-probabilities| by the engine's dtype. Joining the branches as plain causal text
instead differs by more than 1 (see ``multiverse bench lossless``)."""


class SelfTestError(RuntimeError):
    """The engine's joined KV is not what the layout says; it must not serve."""


def probe_tokens(engine: "VllmEngine", seed: int = 0) -> tuple[list[int], list[list[int]], list[int]]:
    """A prefix ending with ``</Goal>``, three branches of different length, and the first tokens after their join.

    Lengths are chosen so that no branch begins or ends on a KV block border.
    """
    tags, space = engine.vocabulary.id, min(engine.vocabulary.space_ids)
    draw = random.Random(seed)
    words = [id for id in range(300, min(engine.manifest.tokens, 3000)) if id not in engine.vocabulary.space_ids]
    taken = set(engine.manifest.tag_ids.values())

    def text(count: int) -> list[int]:
        return [token for token in draw.choices(words, k=count) if token not in taken]

    prefix = [*text(70), tags("<Parallel>"), space, tags("<Goal>"), space]
    for _ in range(3):
        prefix += [tags("<Outline>"), *text(4), tags("</Outline>"), space]
    prefix.append(tags("</Goal>"))
    branches = [[space, tags("<Path>"), *text(count), tags("</Path>")] for count in (9, 33, 21)]
    return prefix, branches, [space, tags("<Conclusion>"), *text(3)]


async def self_test(engine: "VllmEngine") -> float:
    """Largest |difference| of the log-probabilities of the likeliest next tokens after a join. Raises SelfTestError."""
    prefix, branches, after = probe_tokens(engine)
    joined = [*prefix, *(token for branch in branches for token in branch), *after]
    got = await _through_engine(engine, prefix, branches, joined)
    expected = await asyncio.to_thread(_reference, engine, joined)
    worst = max(abs(expected[token] - logprob) for token, logprob in got)
    allowed = TOLERANCE[engine.config.dtype]
    if worst > allowed:
        raise SelfTestError(
            f"the join self-test is off: log-probabilities differ by {worst:.2g} from the layout's forward, in "
            f"{engine.config.dtype} {allowed:g} are allowed; this vLLM lays KV cache or positions out differently"
        )
    return worst


async def _through_engine(
    engine: "VllmEngine", prefix: list[int], branches: list[list[int]], joined: list[int]
) -> tuple[tuple[int, float], ...]:
    salt = "self-test"
    segments = [
        Segment(
            id=f"self-test-{i}",
            tokens=prefix + branch,
            sampling=Sampling(max_tokens=1, temperature=0.0),
            lease=f"self-test-{i}",
            prefill_only=True,
            cache_salt=salt,
        )
        for i, branch in enumerate(branches)
    ]

    async def prefill(segment: Segment) -> None:
        async for _ in engine.run(segment):
            pass

    await asyncio.gather(*map(prefill, segments))
    sources, start = [Source("self-test-0", 0, len(prefix), 0)], len(prefix)
    for i, branch in enumerate(branches):
        sources.append(Source(f"self-test-{i}", start, start + len(branch), len(prefix)))
        start += len(branch)
    join = Segment(
        id="self-test-join",
        tokens=joined,
        sampling=Sampling(max_tokens=1, temperature=0.0, logprobs=5),
        sources=tuple(sources),
        release=tuple(segment.id for segment in segments),
        cache_salt=salt,
    )
    rebuilds = sum(engine.stats.rebuilds.values())
    top: tuple[tuple[int, float], ...] = ()
    async for delta in engine.run(join):
        if delta.logprobs:
            top = delta.logprobs[0].top
    if sum(engine.stats.rebuilds.values()) > rebuilds:
        raise SelfTestError(f"the join self-test was refused by the engine's own guard: {engine.stats.rebuilds}")
    return top


def _reference(engine: "VllmEngine", tokens: list[int]) -> list[float]:
    import torch

    from multiverse.models.reference import layout_logits, load_reference

    model = load_reference(engine.config.model, dtype=getattr(torch, engine.config.dtype))
    logits = layout_logits(model, tokens, layout(engine.vocabulary.kinds(tokens)))
    last: list[float] = torch.log_softmax(logits[-1].float(), -1).tolist()
    return last
