"""Is the merge lossless? The engine's log-probabilities against the layout's forward in transformers, float32.

Documents are replayed: every branch and every join of each is continued greedily by the engine (given branches are
prefilled, each apart, and joined by their KV), and compared token by token with `replay.reference_logprobs`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from multiverse.engine.config import EngineConfig
from multiverse.engine.segment import Sampling, Segment
from multiverse.engine.vllm_engine import VllmEngine
from multiverse.evaluation.replay import Document, reference_logprobs

TOLERANCE = 1e-4
"""Largest |difference of log-probabilities| that counts as lossless, float32."""
TIE = 2e-4
"""Greedy tokens may differ where the reference's best two log-probabilities are closer than this."""
CONTINUATION = 32
MIN_TOKENS = 2000


@dataclass(slots=True)
class Comparison:
    """What was compared so far. ``unequal``: greedy tokens that differ although the reference had a clear best one;
    ``ties``: those that differ where it had not."""

    tokens_compared: int = 0
    max_abs_dlogp: float = 0.0
    greedy_equal: int = 0
    unequal: list[str] = field(default_factory=list)
    ties: list[str] = field(default_factory=list)
    shortest: int = 10**9

    def add(self, where: str, tokens: Sequence[int], logprobs: Sequence[float], expected: torch.Tensor, banned: Sequence[int]) -> None:
        """``expected``: ``[len(tokens), vocab] float32`` log-probabilities; ``banned``: ids the engine may not sample."""
        allowed = expected.clone()
        allowed[:, list(banned)] = -torch.inf
        best = allowed.topk(2).values
        for index, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            self.tokens_compared += 1
            self.max_abs_dlogp = max(self.max_abs_dlogp, abs(float(expected[index, token]) - logprob))
            if float(allowed[index, token]) == float(best[index, 0]):
                self.greedy_equal += 1
                continue
            margin = float(best[index, 0] - best[index, 1])
            (self.ties if margin <= TIE else self.unequal).append(f"{where}, token {index}: margin {margin:.2g}")
            break  # the reference ran over the engine's own tokens, but a flip deserves one line, not thirty
        self.shortest = min(self.shortest, len(tokens))


@dataclass(frozen=True, slots=True)
class Replayed:
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


def banned_ids(engine: VllmEngine) -> tuple[int, ...]:
    """Ids masked in continuations so that none ends early: tags, ends of sequence, padding rows."""
    padding = range(engine.manifest.tokens, engine.manifest.vocab_size)
    return (*engine.manifest.tag_ids.values(), *engine.end_ids, *padding)


async def replay(
    engine: VllmEngine, documents: Sequence[Document], concurrency: int, tenant: str, run: str
) -> list[list[Replayed]]:
    """Continue every probe of every document, at most ``concurrency`` at the same time."""
    gate = asyncio.Semaphore(concurrency)
    banned = banned_ids(engine)

    async def one(document: Document, number: int) -> Replayed:
        async with gate:
            segment = Segment(
                id=f"{run}-{document.name}-{number}",
                tokens=document.prompt(document.probes[number]),
                sampling=Sampling(max_tokens=CONTINUATION, temperature=0.0, logprobs=0),
                masked=banned,
                cache_salt=tenant,
            )
            tokens: list[int] = []
            logprobs: list[float] = []
            async for delta in engine.run(segment):
                tokens += delta.tokens
                logprobs += [entry.logprob for entry in delta.logprobs or ()]
            return Replayed(tuple(tokens), tuple(logprobs))

    async def whole(document: Document) -> list[Replayed]:
        return list(await asyncio.gather(*(one(document, number) for number in range(len(document.probes)))))

    return list(await asyncio.gather(*map(whole, documents)))


def compare(
    comparison: Comparison, model: Any, document: Document, replayed: Sequence[Replayed], banned: Sequence[int], run: str
) -> None:
    expected = reference_logprobs(model, document, [item.tokens for item in replayed])
    for probe, item, rows in zip(document.probes, replayed, expected, strict=True):
        comparison.add(f"{run} {document.name} {probe.kind} at {probe.place}", item.tokens, item.logprobs, rows, banned)


def control(model: Any, document: Document, replayed: Sequence[Replayed]) -> float:
    """How far a causal prefill of the same text is off at the joins: the largest |difference of log-probabilities|."""
    continuations = [item.tokens for item in replayed]
    layout_rows = reference_logprobs(model, document, continuations)
    causal_rows = reference_logprobs(model, document, continuations, causal=True)
    worst = 0.0
    for probe, item, right, wrong in zip(document.probes, replayed, layout_rows, causal_rows, strict=True):
        if probe.kind == "join":
            index = torch.arange(len(item.tokens)), torch.tensor(item.tokens)
            worst = max(worst, float((right[index] - wrong[index]).abs().max()))
    return worst


def small_cache(config: EngineConfig, longest: int) -> EngineConfig:
    """The same engine with a KV cache that just holds one of the longest sequences twice."""
    from dataclasses import replace

    size = config.block_size or 128
    length = (longest + CONTINUATION + size) // size * size
    return replace(config, kv_cache_blocks=2 * length // size + 2, max_model_len=length, self_test=False)


def summary(comparison: Comparison, **figures: Any) -> dict[str, Any]:
    return {**{key: value for key, value in asdict(comparison).items() if key != "shortest"}, **figures}
