"""An engine without a model, on a clock of its own: what it takes is known, and so is what a benchmark has to find."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from multiverse.engine.segment import Delta, Fork, Placed, Segment
from multiverse.evaluation.speed.script import Script
from multiverse.models.manifest import Manifest
from multiverse.models.tokens import Tokens
from multiverse.serving.sequencing.sequencer import EngineLimits
from multiverse.serving.whole import WholeEngine

STEP, ROW, PREFILL, JOIN = 0.010, 0.001, 0.0002, 0.03
"""Seconds of a step, of each row in it, of each token of new text, and of a join by KV."""


class SimulatedSegments:
    """All segments that run make their next token in the same step. Text that was seen before is not prefilled."""

    def __init__(self, model: Path, script: Path) -> None:
        self.manifest = Manifest.load(model)
        self.vocabulary = self.manifest.vocabulary()
        self.end_ids = Tokens.load(model).eos_ids
        self.block_size, self.kv_tokens, self.max_model_len = 128, 100_000, 8192
        self.now = 0.0
        self.joins = 0
        self._script = script
        self._seen: set[tuple[int, ...]] = set()
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []
        self._clock: asyncio.Task[None] | None = None

    async def run(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        extra = self._extra(segment)
        if segment.prefill_only:
            await self._step(extra)
            yield Delta((), finish="stop")
            return
        script = Script.load(self._script).following(segment.tokens) if self._follows(segment) else None
        count = segment.sampling.max_tokens if script is None else len(script)
        for number in range(count):
            await self._step(extra if number == 0 else 0.0)
            token = 77 if script is None else script[number]
            if token in self.end_ids:
                yield Delta((), finish="stop")
                return
            ends = token in (*segment.stop_ids, segment.closer)
            last = number == count - 1
            yield Delta((token,), finish="stop" if ends else "length" if last else None)
            if ends:
                return

    def _follows(self, segment: Segment) -> bool:
        plain = segment.closer is None and self.vocabulary.id("<Parallel>") in segment.masked
        return self._script.exists() and not plain

    def _extra(self, segment: Segment) -> float:
        """Seconds before the first step: a join's, a fork's (none), or the prefill of the blocks that are new."""
        tokens = tuple(segment.tokens)
        blocks = [tokens[:end] for end in range(128, len(tokens) + 1, 128)]
        known = max((len(block) for block in blocks if block in self._seen), default=0)
        self._seen.update(blocks)
        if len(segment.sources) > 1:
            self.joins += 1
            return JOIN
        return 0.0 if segment.sources else PREFILL * (len(tokens) - known)

    async def _step(self, extra: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((extra, future))
        if self._clock is None or self._clock.done():
            self._clock = asyncio.create_task(self._tick())
        await future

    async def _tick(self) -> None:
        while self._waiting:
            for _ in range(20):  # whoever has its token asks for the next one
                await asyncio.sleep(0)
            step, self._waiting = self._waiting, []
            self.now += STEP + ROW * len(step) + sum(extra for extra, _ in step)
            for _, future in step:
                if not future.done():
                    future.set_result(None)
            for _ in range(20):
                await asyncio.sleep(0)

    async def release(self, leases: Sequence[str]) -> None:
        return

    def place(self, fork: Fork) -> Placed:
        return Placed(("",) * fork.width)

    def elsewhere(self, replica: str) -> str:
        return replica


class SimulatedEngine(WholeEngine):
    def __init__(self, model: Path, script: Path) -> None:
        self.segments = SimulatedSegments(model, script)
        super().__init__(self.segments, model, EngineLimits(8192, trained=False))
