"""Free generation through the whole request path, compared token by token with the layout's forward."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from multiverse.engine.segment import Sampling, TokenLogprob
from multiverse.evaluation.comparison import Comparison, banned_ids
from multiverse.models.reference import layout_logits
from multiverse.serving.events import BlockForked, Event, Finished, Place, TokensAdded
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.whole import WholeEngine
from multiverse.structure.layout import layout
from multiverse.structure.tags import Kind

QUESTIONS = (
    "Give practical tips for sleeping better.",
    "What makes a good bicycle for the city?",
    "How can a small shop find new customers?",
    "Describe what to see on a walk through a forest.",
    "What should one know before keeping bees?",
    "How does a library help its town?",
    "What are the parts of a good breakfast?",
    "How do people prepare for a long hike?",
)


@dataclass(slots=True)
class Answer:
    """A finished request: ``logprobs`` has one entry per answer token in reading order, None for written ones."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    logprobs: list[TokenLogprob | None] = field(default_factory=list)


@dataclass(slots=True)
class _Text:
    """One place's tokens in their order, with the blocks that fork in it."""

    items: list[tuple[int, TokenLogprob | None] | int] = field(default_factory=list)


async def generate_freely(engine: WholeEngine, concurrency: int, max_tokens: int) -> list[Answer]:
    """Greedy answers to `QUESTIONS` in ``force`` mode with 2 to 5 branches each."""
    gate = asyncio.Semaphore(concurrency)

    async def one(number: int, question: str) -> Answer:
        prompt = tuple(engine.tokens.chat([{"role": "user", "content": question}]))
        request = GenerationRequest(
            id=f"free-{concurrency}-{max_tokens}-{number}",
            prompt=prompt,
            sampling=Sampling(max_tokens=max_tokens, temperature=0.0, logprobs=0),
            parallel=ParallelOptions(mode="force", width=2 + number % 4),
            question=question,
            arrival=number,
            cache_salt="free",
        )
        async with gate:
            return reading_order(prompt, [event async for event in engine.generate(request)])

    return list(await asyncio.gather(*(one(number, question) for number, question in enumerate(QUESTIONS))))


def reading_order(prompt: tuple[int, ...], events: Sequence[Event]) -> Answer:
    """The answer with its log-probabilities in reading order, put together from the events of its places."""
    texts: dict[Place, _Text] = {(): _Text()}
    widths: dict[int, int] = {}
    answer = Answer(prompt)
    for event in events:
        if isinstance(event, BlockForked):
            texts[event.place].items.append(event.block)
            widths[event.block] = len(event.outlines)
            texts |= {(*event.place, (event.block, branch + 1)): _Text() for branch in range(len(event.outlines))}
        elif isinstance(event, TokensAdded):
            logprobs = event.logprobs or [None] * len(event.tokens)
            texts[event.place].items += zip(event.tokens, logprobs, strict=True)
        elif isinstance(event, Finished):
            answer.tokens = event.result.tokens

    def walk(place: Place) -> list[tuple[int, TokenLogprob | None]]:
        flat: list[tuple[int, TokenLogprob | None]] = []
        for item in texts[place].items:
            if isinstance(item, int):
                for branch in range(widths[item]):
                    flat += walk((*place, (item, branch + 1)))
            else:
                flat.append(item)
        return flat

    flat = walk(())
    if tuple(token for token, _ in flat) != answer.tokens:
        raise RuntimeError("the events of a request do not add up to its result")
    answer.logprobs = [logprob for _, logprob in flat]
    return answer


def compare_answer(comparison: Comparison, model: Any, engine: WholeEngine, answer: Answer, run: str) -> None:
    """Compare all sampled tokens but closers, whose probability the engine joins with that of the end of sequence."""
    sequence = [*answer.prompt, *answer.tokens]
    kinds = engine.manifest.vocabulary().kinds(sequence)
    logprobs = torch.log_softmax(layout_logits(model, sequence, layout(kinds)), -1)
    start = len(answer.prompt)
    sampled = [
        index
        for index, entry in enumerate(answer.logprobs, start)
        if entry is not None and kinds[index] in (Kind.TEXT, Kind.SPACE)
    ]
    entries = [answer.logprobs[index - start] for index in sampled]
    comparison.add(
        run,
        [sequence[index] for index in sampled],
        [entry.logprob for entry in entries if entry is not None],
        logprobs[[index - 1 for index in sampled]],
        banned_ids(engine.manifest, engine.tokens.eos_ids),
    )
