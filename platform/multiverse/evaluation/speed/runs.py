"""Timed requests on one engine, through the whole request path: those that fork, plain ones, and second prefills."""

import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from multiverse.engine.config import EngineConfig
from multiverse.engine.segment import Sampling
from multiverse.evaluation.speed.following import FILE, PROCESSOR
from multiverse.evaluation.speed.script import Writer, Written
from multiverse.serving.events import BlockForked, BlockJoined, BranchFinished, Finished, Place, Result, TokensAdded
from multiverse.serving.local import MultiverseEngine
from multiverse.serving.request import GenerationRequest, ParallelOptions, Reduce


@dataclass(slots=True)
class Timed:
    """One request. Seconds on the monotonic clock: when it was submitted, and when each of its tokens arrived.

    forked: when its first block forked. Of each block, in seconds, forks: from there until every branch has sampled a
    token; branches: from then until the last one's end, and how many tokens it sampled meanwhile; joins: from there
    to the first token that was sampled behind the join.
    """

    submitted: float
    arrived: list[float] = field(default_factory=list)
    forked: float | None = None
    forks: list[float] = field(default_factory=list)
    branches: list[tuple[float, int]] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)
    result: Result | None = None


def sequential_seconds(batch: Sequence[Timed], tokens: int) -> float:
    """From the first request's first token until all have ``tokens`` more."""
    return max(run.arrived[tokens] for run in batch) - min(run.arrived[0] for run in batch)


def structured_seconds(batch: Sequence[Timed], from_fork: bool) -> float:
    """From the first request's first token, or its first fork, until all are at their end."""
    begun = [run.forked if from_fork and run.forked is not None else run.arrived[0] for run in batch]
    return max(run.arrived[-1] for run in batch) - min(begun)


def step_seconds(rows: Sequence[Timed], tokens: int) -> float:
    """Seconds of a decode step while all ``rows`` are in the batch, over their first ``tokens`` tokens."""
    begun = max(row.arrived[0] for row in rows)
    ended = min(row.arrived[tokens - 1] for row in rows)
    spans = [[at for at in row.arrived[:tokens] if begun <= at <= ended] for row in rows]
    return statistics.median((span[-1] - span[0]) / (len(span) - 1) for span in spans if len(span) > 1)


ROOM = 8
"""How many times as many tokens a structured answer may come to as it will."""


class Runner:
    """Runs timed requests. ``engine`` follows scripts (`running`)."""

    def __init__(
        self,
        engine: MultiverseEngine,
        script: Path,
        seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.write = Writer(engine.tokens, seed)
        self._script = script
        self._numbers = itertools.count()

    async def cache(self, prompts: Sequence[Sequence[int]]) -> None:
        """Make the KV of prompts, one after the other, so that their whole blocks are in the prefix cache."""
        for prompt in prompts:
            await self._plain(prompt, 1)

    async def plain(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[Timed]:
        """Exactly ``tokens`` tokens in sequence behind each prompt, all at once."""
        return list(await asyncio.gather(*(self._plain(prompt, tokens) for prompt in prompts)))

    async def structured(
        self, prompts: Sequence[Sequence[int]], written: Written, reduce: Reduce = "kv"
    ) -> list[Timed]:
        """Requests that all write the same answer, all at once. Raises RuntimeError where one is another."""
        (start,) = {len(prompt) for prompt in prompts}
        written.script(start).save(self._script)
        runs = await asyncio.gather(*(self._structured(prompt, len(written.tokens), reduce) for prompt in prompts))
        for run in runs:
            if reduce == "kv" and (run.result is None or run.result.tokens != written.tokens):
                raise RuntimeError("an answer is not as it was scripted: its time says nothing")
        return list(runs)

    async def prefill(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Seconds to the first token, median over the requests, where ``tokens`` tokens of new text stand behind a
        prompt that is in the cache: how branches are joined without their KV."""
        return statistics.median(
            run.arrived[0] - run.submitted
            for run in await self.plain([[*prompt, *self.write.text(tokens)] for prompt in prompts], 1)
        )

    def _request(self, prompt: Sequence[int], sampling: Sampling, parallel: ParallelOptions) -> GenerationRequest:
        number = next(self._numbers)
        return GenerationRequest(
            f"speed-{number}", tuple(prompt), sampling, parallel, arrival=number, cache_salt="speed"
        )

    async def _plain(self, prompt: Sequence[int], tokens: int) -> Timed:
        sampling = Sampling(tokens, temperature=0.0, ignore_eos=True)
        return await self._timed(self._request(prompt, sampling, ParallelOptions()))

    async def _structured(self, prompt: Sequence[int], tokens: int, reduce: Reduce) -> Timed:
        # Branches share what is left of the budget alike, and those of a chain are not alike.
        room = min(self.engine.limits.max_model_len - len(prompt), ROOM * tokens)
        options = ParallelOptions(mode="auto", max_width=64, max_depth=8, reduce=reduce)
        return await self._timed(self._request(prompt, Sampling(room, temperature=0.0), options))

    async def _timed(self, request: GenerationRequest) -> Timed:
        run, blocks, joined = Timed(self.clock()), dict[int, _Block](), dict[Place, float]()
        async for event in self.engine.generate(request):
            now = self.clock()
            if isinstance(event, TokensAdded):
                run.arrived += [now] * len(event.tokens)
                if not event.written:
                    if event.place:
                        blocks[event.place[-1][0]].take(event.place, len(event.tokens), now)
                    if event.place in joined:
                        run.joins.append(now - joined.pop(event.place))
            elif isinstance(event, BlockForked):
                run.forked = run.forked or now
                blocks[event.block] = _Block(now)
            elif isinstance(event, BranchFinished):
                blocks[event.place[-1][0]].ended = now
            elif isinstance(event, BlockJoined):
                block = blocks[event.block]
                joined[event.place] = block.ended
                run.forks.append(block.started - block.forked)
                run.branches.append((block.ended - block.started, max(block.sampled.values()) - 1))
            elif isinstance(event, Finished):
                run.result = event.result
        return run


@dataclass(slots=True)
class _Block:
    """A block that runs. started: when the last of its branches sampled its first token."""

    forked: float
    started: float = 0.0
    ended: float = 0.0
    sampled: dict[Place, int] = field(default_factory=dict)

    def take(self, place: Place, tokens: int, now: float) -> None:
        if place not in self.sampled:
            self.started = now
        self.sampled[place] = self.sampled.get(place, 0) + tokens


@asynccontextmanager
async def running(config: EngineConfig, seed: int = 0) -> AsyncIterator[Runner]:
    """A runner on an engine of its own, which has run a little of everything."""
    from multiverse.evaluation.speed.shape import even

    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.json"
        os.environ[FILE] = str(script)
        engine = await MultiverseEngine.start(replace(config, logits_processors=(*config.logits_processors, PROCESSOR)))
        try:
            runner = Runner(engine, script, seed)
            prompts = [runner.write.text(300) for _ in range(4)]
            await runner.cache(prompts)
            for width in (2, 8):
                await runner.structured(prompts, runner.write.answer(even(width, 24)))
            await runner.plain(prompts, 16)
            yield runner
        finally:
            await engine.shutdown()
            os.environ.pop(FILE, None)
