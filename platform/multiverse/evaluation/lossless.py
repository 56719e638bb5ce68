"""Is the merge lossless? The engine's log-probabilities against the layout's forward in transformers, float32.

Documents are replayed: every branch and every join of each is continued greedily by the engine (given branches are
prefilled, each apart, and joined by their KV), and compared token by token with `replay.reference_logprobs`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multiverse.engine.config import EngineConfig
from multiverse.engine.segment import Sampling, Segment
from multiverse.engine.vllm_engine import VllmEngine
from multiverse.evaluation.comparison import Comparison, banned_ids
from multiverse.evaluation.documents import border_documents
from multiverse.evaluation.free import compare_answer, generate_freely
from multiverse.evaluation.replay import Document, reference_logprobs, whole_blocks
from multiverse.models.manifest import Manifest
from multiverse.models.reference import layout_logits, load_reference
from multiverse.models.tokens import Tokens
from multiverse.serving.local import MultiverseEngine
from multiverse.serving.whole import WholeEngine
from multiverse.structure.grammar import GrammarError, parse
from multiverse.structure.layout import Layout
from multiverse.structure.tags import Vocabulary

TOLERANCE = 1e-4
"""Largest |difference of log-probabilities| that counts as lossless, float32."""
CONTINUATION = 32
MIN_TOKENS = 2000


@dataclass(frozen=True, slots=True)
class Replayed:
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


async def replay(
    engine: VllmEngine, documents: Sequence[Document], concurrency: int, tenant: str, run: str
) -> list[list[Replayed]]:
    """Continue every probe of every document, at most ``concurrency`` at the same time."""
    gate = asyncio.Semaphore(concurrency)
    banned = banned_ids(engine.manifest, engine.end_ids)

    async def one(document: Document, number: int) -> Replayed:
        async with gate:
            segment = Segment(
                id=f"{run}-{document.name}-{number}",
                tokens=document.prompt(document.probes[number]),
                sampling=Sampling(max_tokens=CONTINUATION, temperature=0.0, logprobs=0),
                masked=banned,
                cache_salt=tenant,
            )
            return await _generate(engine, segment)

    async def whole(document: Document) -> list[Replayed]:
        return list(await asyncio.gather(*(one(document, number) for number in range(len(document.probes)))))

    return list(await asyncio.gather(*map(whole, documents)))


async def _generate(engine: VllmEngine, segment: Segment) -> Replayed:
    tokens: list[int] = []
    logprobs: list[float] = []
    async for delta in engine.run(segment):
        tokens += delta.tokens
        logprobs += [entry.logprob for entry in delta.logprobs or ()]
    return Replayed(tuple(tokens), tuple(logprobs))


def compare(
    comparison: Comparison,
    model: Any,
    document: Document,
    replayed: Sequence[Replayed],
    banned: Sequence[int],
    run: str,
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


async def ordinary(engine: VllmEngine, prompts: Sequence[Sequence[int]], tenant: str, run: str) -> list[Replayed]:
    """Plain requests: the same text with its tags spelled out, so that it is causal for everybody."""
    results = []
    for number, prompt in enumerate(prompts):
        sampling = Sampling(max_tokens=CONTINUATION, temperature=0.0, logprobs=0)
        results.append(await _generate(engine, Segment(f"{run}-{number}", prompt, sampling, cache_salt=tenant)))
    return results


def small_cache(config: EngineConfig, longest: int) -> EngineConfig:
    """The same engine with a KV cache that just holds two of the longest sequences."""
    size = config.block_size or 128
    length = (longest + CONTINUATION + size) // size * size
    return replace(config, kv_cache_blocks=2 * length // size + 2, max_model_len=length)


async def measure(
    config: EngineConfig, chains: Sequence[Path], max_tokens: int, concurrency: Sequence[int]
) -> dict[str, Any]:
    """Replay documents and chains, and generate freely, on a large and on a small KV cache. Gives the whole report.

    Raises ValueError for a chain that is not valid.
    """
    tokens, manifest = Tokens.load(config.model), Manifest.load(config.model)
    vocabulary = manifest.vocabulary()
    model = load_reference(config.model)
    made = border_documents(vocabulary, config.block_size or 128)
    small = [Document.of(name, ids, vocabulary, header=3) for name, ids in made.items()]
    large = [Document.of(path.name, _chain(path, tokens, vocabulary, max_tokens), vocabulary, 5) for path in chains]
    longest = max(len(document.tokens) for document in (*small, *large))
    roomy = replace(config, max_model_len=max(longest + 2 * CONTINUATION, 2048), kv_cache_bytes=3 * 2**30)
    report = _Report(model)

    engine = await VllmEngine.start(roomy)
    try:
        spelled = [tokens.encode_plain(tokens.decode(document.tokens)) for document in small[-3:]]
        report.ordinary("ordinary before", spelled, await ordinary(engine, spelled, "a", "before"))
        for number in concurrency:
            await report.replay(engine, f"{number} at once", [*small, *large], number, tenant=f"a{number}")
        hits = engine.stats.prefix_cache_hits
        await ordinary(engine, [small[0].prompt(small[0].probes[0])], "b", "tenant")
        report.isolated = engine.stats.prefix_cache_hits == hits
        await report.replay(engine, "second tenant", small, max(concurrency), tenant="b")
        for number in concurrency:
            await report.live(MultiverseEngine(engine), f"live, {number} at once", number)
        await report.replay(engine, "same cache again", small, max(concurrency), tenant=f"a{concurrency[0]}")
        report.ordinary("ordinary after", spelled, await ordinary(engine, spelled, f"a{concurrency[0]}", "after"))
    finally:
        engine.shutdown()

    engine = await VllmEngine.start(small_cache(roomy, max(len(document.tokens) for document in small)))
    try:
        await report.replay(engine, "small cache", small, 16, tenant="a")
        await report.live(MultiverseEngine(engine), "live, small cache", 16, max_tokens=200)
        return report.finish(engine, [*small, *large][:: max(1, len(small) // 4)])
    finally:
        engine.shutdown()


def _chain(path: Path, tokens: Tokens, vocabulary: Vocabulary, limit: int) -> list[int]:
    text = path.read_text(encoding="utf-8")
    try:
        parse(text)
    except GrammarError as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        return whole_blocks(tokens.encode_structured(text), vocabulary, limit)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class _Report:
    """Collects the phases of one run."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._all = Comparison()
        self._phases: dict[str, Comparison] = {}
        self._replayed: dict[str, list[Replayed]] = {}
        self.isolated = False

    def _phase(self, name: str) -> Comparison:
        return self._phases.setdefault(name, Comparison())

    async def replay(
        self, engine: VllmEngine, name: str, documents: Sequence[Document], concurrency: int, tenant: str
    ) -> None:
        results = await replay(engine, documents, concurrency, tenant, name.replace(" ", "-"))
        for document, replayed in zip(documents, results, strict=True):
            compare(
                self._phase(name), self._model, document, replayed, banned_ids(engine.manifest, engine.end_ids), name
            )
            self._replayed[document.name] = replayed

    async def live(self, engine: WholeEngine, name: str, concurrency: int, max_tokens: int = 320) -> None:
        for answer in await generate_freely(engine, concurrency, max_tokens):
            compare_answer(self._phase(name), self._model, engine, answer, name)

    def ordinary(self, name: str, prompts: Sequence[Sequence[int]], replayed: Sequence[Replayed]) -> None:
        for prompt, item in zip(prompts, replayed, strict=True):
            sequence = [*prompt, *item.tokens]
            plain = Layout(np.arange(len(sequence), dtype=np.int32), (), len(sequence))
            logits = layout_logits(self._model, sequence, plain)
            rows = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
            self._phase(name).add(name, item.tokens, item.logprobs, rows, ())

    def finish(self, engine: VllmEngine, documents: Sequence[Document]) -> dict[str, Any]:
        """``ok`` only if everything held and everything that was to be provoked did happen."""
        for phase in self._phases.values():
            self._all.take(phase)
        off = max(control(self._model, document, self._replayed[document.name]) for document in documents)
        stats, total = engine.stats, self._all
        ok = (
            total.max_abs_dlogp <= TOLERANCE
            and not total.unequal
            and total.tokens_compared >= MIN_TOKENS
            and total.shortest >= CONTINUATION
            and off > 10 * TOLERANCE
            and self.isolated
            and min(stats.preemptions, stats.lease_spills, sum(stats.rebuilds.values())) > 0
            and stats.leases == 0
        )
        return {
            **total.report(),
            "control_dlogp": off,
            "preemptions": stats.preemptions,
            "spills": stats.lease_spills,
            "rebuilds": stats.rebuilds,
            "leases_left": stats.leases,
            "tenants_isolated": self.isolated,
            "phases": {name: phase.figures() for name, phase in self._phases.items()},
            "ok": ok,
        }
