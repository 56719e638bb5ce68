"""What one started engine takes, measured in a few seconds: the numbers that placement decides by.

All runs are short, greedy and on random plain text. Each is done twice and the faster one counts: whatever else the
machine does can only slow a run down.
"""

import asyncio
import itertools
import random
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from multiverse.engine.references import KVReference
from multiverse.engine.segment import Delta, Sampling, Segment, SegmentEngine, Source

BATCHES = (1, 2, 4, 8, 16)
STEPS = 10
SHORT, LONG = 128, 1024
"""Tokens of the two prefills: what a longer one takes more is per token, the rest is fixed."""
LONG_ROWS = 8
"""Rows that decode behind the long prefill, which they share, for what context adds to a step."""


def longest_prefill(max_model_len: int) -> int:
    """Tokens of the longer prefill that an engine of sequences of ``max_model_len`` has room for."""
    return max(SHORT + 32, min(LONG, max_model_len - 64))


@dataclass(frozen=True, slots=True)
class EngineCosts:
    """Seconds.

    steps: (rows, seconds) of a decode step on short contexts, rows ascending.
    step_context: what each token of context, over all rows of the batch, adds to a step.
    prefill_fixed, prefill_token: a prefill of n tokens takes prefill_fixed + n * prefill_token.
    join_fixed: from asking for a join to its first token, where all KV is in this engine.
    """

    steps: tuple[tuple[int, float], ...]
    step_context: float
    prefill_fixed: float
    prefill_token: float
    join_fixed: float


@dataclass(frozen=True, slots=True)
class Link:
    """KV from one replica to another: ``fixed`` seconds and then ``bytes_per_second``."""

    fixed: float
    bytes_per_second: float


async def measure_costs(
    engine: SegmentEngine,
    words: Sequence[int],
    masked: tuple[int, ...],
    batches: Sequence[int] = BATCHES,
    longest: int = LONG,
    clock: Callable[[], float] = time.perf_counter,
) -> EngineCosts:
    """Measure an idle engine; about 4 s for a model of 135 million parameters on two cores.

    words: ids of ordinary tokens, which prompts are made of. masked: ids that would end a segment, and tags.
    longest: tokens of the longer prefill, more than `SHORT`.
    """
    measure = _Measurement(engine, words, masked, clock)
    await measure.decode(1, measure.text(8), STEPS)  # what runs for the first time is slower
    steps, slowest = [], 0.0
    for rows in batches:
        # Noise may make a larger batch look faster; a curve that falls would ask for larger batches without end.
        slowest = max(slowest, await measure.step(rows, measure.text(8)))
        steps.append((rows, slowest))
    short, join = await measure.prefill_and_join(SHORT)
    long, text = await measure.prefill(longest)
    token = max(0.0, long - short) / (longest - SHORT)
    behind = await measure.step(LONG_ROWS, text)
    alone = await measure.step(LONG_ROWS, measure.text(8))
    context = max(0.0, behind - alone) / (LONG_ROWS * longest)
    return EngineCosts(tuple(steps), context, max(0.0, short - SHORT * token), token, join)


class ExportingEngine(SegmentEngine, Protocol):
    """A segment engine whose KV others can read."""

    async def export(self, lease: str, start: int, like: Segment) -> KVReference | None: ...


async def measure_link(
    engine: ExportingEngine,
    words: Sequence[int],
    masked: tuple[int, ...],
    kv_bytes: int,
    longest: int = LONG,
    clock: Callable[[], float] = time.perf_counter,
) -> Link | None:
    """What KV takes from this engine to itself, on the way that it takes to another one of its node.

    kv_bytes: of a token. None where more KV did not take longer: what else the machine does hides it.
    """
    measure = _Measurement(engine, words, masked, clock)
    step = await measure.step(1, measure.text(8))
    short, long = [await measure.moved(engine, length) for length in (SHORT, longest)]
    if long <= short:
        return None
    rate = (longest - SHORT) * kv_bytes / (long - short)
    return Link(max(0.0, short - step - SHORT * kv_bytes / rate), rate)


class _Measurement:
    def __init__(
        self, engine: SegmentEngine, words: Sequence[int], masked: tuple[int, ...], clock: Callable[[], float]
    ) -> None:
        self.engine, self.words, self.masked, self.clock = engine, words, masked, clock
        self._numbers = itertools.count()
        # The texts are the same each time, and another measurement of this engine may have left their KV in its cache.
        self._salt = f"costs-{secrets.token_hex(8)}"
        self._draw = random.Random(0)

    def text(self, length: int) -> list[int]:
        return self._draw.choices(self.words, k=length)

    async def step(self, rows: int, text: Sequence[int]) -> float:
        """Seconds of a decode step of ``rows`` rows behind the same text."""
        return min([await self.decode(rows, text, STEPS) for _ in range(2)])

    async def decode(self, rows: int, text: Sequence[int], steps: int) -> float:
        arrivals = await asyncio.gather(*(self._arrivals(text, steps + 1) for _ in range(rows)))
        # From when the last row decodes until the first has ended, all rows are in the batch.
        begun, ended = max(row[0] for row in arrivals), min(row[-1] for row in arrivals)
        spans = [[at for at in row if begun <= at <= ended] for row in arrivals]
        return statistics.median((span[-1] - span[0]) / (len(span) - 1) for span in spans if len(span) > 1)

    async def prefill(self, length: int) -> tuple[float, list[int]]:
        """Seconds to the first token behind a new text, and the text."""
        seconds, text = [], []
        for _ in range(2):
            text, begun = self.text(length), self.clock()
            seconds.append((await self._arrivals(text, 1))[0] - begun)
        return min(seconds), text

    async def prefill_and_join(self, length: int) -> tuple[float, float]:
        """Seconds of a prefill and of a join that gets all of its KV from that prefill's lease."""
        prefills, joins = [], []
        for _ in range(2):
            text, lease, begun = self.text(length), f"costs-lease-{next(self._numbers)}", self.clock()
            async for _ in self._run(text, 1, lease=lease, prefill_only=True):
                prefills.append(self.clock() - begun)
            begun = self.clock()
            # Another name space of the prefix cache: the KV has to come from the lease.
            source = (Source(lease, 0, length, 0),)
            salt = f"{self._salt}-join"
            joined = self._run([*text, *self.text(1)], 1, sources=source, release=(lease,), cache_salt=salt)
            async for delta in joined:
                if delta.tokens:
                    joins.append(self.clock() - begun)
        return min(prefills), min(joins)

    async def moved(self, engine: ExportingEngine, length: int) -> float:
        """Seconds from asking for the KV of ``length`` tokens to the first token behind it, somewhere else."""
        seconds = []
        for _ in range(3):
            text, lease = self.text(length), f"costs-lease-{next(self._numbers)}"
            async for _ in self._run(text, 1, lease=lease, prefill_only=True):
                pass
            begun = self.clock()
            reference = await engine.export(lease, 0, Segment("costs", text, Sampling(1), cache_salt=self._salt))
            if reference is None:
                raise RuntimeError(f"the KV of {length} tokens finds no room to be moved")
            taken = {"sources": (Source("theirs", 0, length, 0),), "adopted": (("theirs", reference),)}
            async for _ in self._run([*text, *self.text(1)], 1, cache_salt=f"{self._salt}-moved", **taken):
                seconds.append(self.clock() - begun)
            await engine.release((lease, reference.id))
        return min(seconds)

    async def _arrivals(self, text: Sequence[int], count: int) -> list[float]:
        at: list[float] = []
        async for delta in self._run(text, count):
            at += [self.clock()] * len(delta.tokens)
        return at

    async def _run(self, text: Sequence[int], count: int, **segment: object) -> AsyncIterator[Delta]:
        fields = {"masked": self.masked, "cache_salt": self._salt} | segment
        sampling = Sampling(max_tokens=count, temperature=0.0)
        one = Segment(f"costs-{next(self._numbers)}", list(text), sampling, **fields)  # type: ignore[arg-type]
        async with aclosing(self.engine.run(one)) as deltas:
            async for delta in deltas:
                yield delta
