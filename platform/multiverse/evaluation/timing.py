"""What a join costs on this machine, in decode steps and beside a second prefill: ratios within one run.

Branch lengths are fixed (ends are masked, the closer is forced), so content plays no role.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from multiverse.engine.config import EngineConfig
from multiverse.engine.segment import Sampling, Segment, Source
from multiverse.engine.vllm_engine import VllmEngine
from multiverse.evaluation.comparison import banned_ids
from multiverse.evaluation.documents import DocumentWriter


@dataclass(frozen=True, slots=True)
class Timeline:
    """Seconds on the monotonic clock: when a segment was submitted and when each of its tokens arrived."""

    submitted: float
    arrived: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def last(self) -> float:
        return self.arrived[-1]

    @property
    def first(self) -> float:
        return self.arrived[0]

    @property
    def step(self) -> float:
        """Median seconds between tokens."""
        return statistics.median(b - a for a, b in itertools.pairwise(self.arrived))


class Stopwatch:
    """Runs timed segments on one engine; every measurement gets a prefix of its own from one seed."""

    def __init__(self, engine: VllmEngine, seed: int = 0) -> None:
        self.engine = engine
        self._write = DocumentWriter(engine.vocabulary, seed)
        self._numbers = itertools.count()
        self._banned = banned_ids(engine.manifest, engine.end_ids)

    def fork_prefix(self, length: int, width: int) -> list[int]:
        """``length`` tokens that end with the ``</Goal>`` of a block of ``width`` branches."""
        goal = self._write.block([[]] * width)
        header = goal[: goal.index(self.engine.vocabulary.id("</Goal>")) + 1]
        return [*self._write.text(max(1, length - len(header))), *header]

    def text(self, length: int) -> list[int]:
        return self._write.text(length)

    async def run(self, tokens: Sequence[int], count: int, **segment: Any) -> Timeline:
        """Generate exactly ``count`` tokens greedily."""
        submitted, arrived, got = time.perf_counter(), list[float](), list[int]()
        sampling = Sampling(max_tokens=count, temperature=0.0)
        one = Segment(
            f"timed-{next(self._numbers)}", tokens, sampling, masked=self._banned, cache_salt="bench", **segment
        )
        async for delta in self.engine.run(one):
            arrived += [time.perf_counter()] * len(delta.tokens)
            got += delta.tokens
        return Timeline(submitted, tuple(arrived), tuple(got))

    async def prefill(self, tokens: Sequence[int]) -> str:
        """Make the KV of ``tokens`` and lease it; gives the lease."""
        lease = f"timed-{next(self._numbers)}"
        sampling = Sampling(max_tokens=1, temperature=0.0)
        async for _ in self.engine.run(
            Segment(lease, tokens, sampling, lease=lease, prefill_only=True, cache_salt="bench")
        ):
            pass
        return lease

    async def fork_join(self, prefix: Sequence[int], width: int, length: int, after: int, given: int = 0) -> "ForkJoin":
        """Fork behind ``prefix``, ``width`` branches of ``length`` tokens each (header and closer included), join, and
        generate ``after`` tokens. The prefix is leased, as it is when the model has just written it. The first
        ``given`` tokens of a branch are prefilled text, the others are generated."""
        vocabulary = self.engine.vocabulary
        space = min(vocabulary.space_ids)
        parent = await self.prefill(prefix[:-1])
        header = [space, vocabulary.id("<Path>")]
        leases = [f"timed-{next(self._numbers)}" for _ in range(width)]
        begun = time.perf_counter()
        begins = [[*header, *self.text(given)] for _ in leases]
        branches = await asyncio.gather(
            *(
                self.run(
                    [*prefix, *begin],
                    length - len(begin),
                    closer=vocabulary.id("</Path>"),
                    lease=lease,
                    sources=(Source(parent, 0, len(prefix) - 1, 0),),
                )
                for lease, begin in zip(leases, begins, strict=True)
            )
        )
        ended = time.perf_counter()
        joined, sources = [*prefix], [Source(leases[0], 0, len(prefix) + length, 0)]
        for lease, begin, branch in zip(leases, begins, branches, strict=True):
            start = len(joined)
            joined += [*begin, *branch.tokens]
            if start > len(prefix):
                sources.append(Source(lease, start, len(joined), len(prefix)))
        joined += [space, vocabulary.id("<Conclusion>")]
        rest = await self.run(joined, after, sources=tuple(sources), release=(parent, *leases))
        return ForkJoin(begun, ended, tuple(branches), rest)


@dataclass(frozen=True, slots=True)
class ForkJoin:
    begun: float
    ended: float
    branches: tuple[Timeline, ...]
    rest: Timeline

    @property
    def join_seconds(self) -> float:
        """From the last branch's last token to the first token after the join."""
        return self.rest.first - max(branch.last for branch in self.branches)

    @property
    def seconds(self) -> float:
        """From the fork to the first token after the join."""
        return self.rest.first - self.begun


@dataclass(frozen=True, slots=True)
class JoinCost:
    """Medians over the repeats. join_steps: in decode steps at that context. prefill_ratio: second prefill / join."""

    tokens: int
    branches: int
    join_ms: float
    step_ms: float
    join_steps: float
    second_prefill_ms: float
    prefill_ratio: float


async def join_cost(watch: Stopwatch, tokens: int, branches: int, repeats: int, prefix: int = 200) -> JoinCost:
    """Join of ``branches`` branches of ``tokens`` tokens in all, beside a second prefill of as much plain text.

    Each branch generates its last 16 tokens; what stands before them makes no difference to the join.
    """
    joins, steps, prefills = [], [], []
    for _ in range(repeats):
        head = watch.fork_prefix(prefix, branches)
        each = tokens // branches
        measured = await watch.fork_join(head, branches, each, after=12, given=each - 18)
        joins.append(measured.join_seconds)
        steps.append(measured.rest.step)
        plain = watch.text(prefix)
        await watch.run(plain, 1)  # the prefix is in the cache, as it is for a client that joins by text
        prefills.append((again := await watch.run([*plain, *watch.text(tokens)], 1)).first - again.submitted)
    join, step, prefill = (statistics.median(values) for values in (joins, steps, prefills))
    return JoinCost(tokens, branches, join * 1e3, step * 1e3, join / step, prefill * 1e3, prefill / join)


def rows(results: Sequence[JoinCost]) -> list[dict[str, Any]]:
    return [{key: round(value, 4) for key, value in asdict(result).items()} for result in results]


@asynccontextmanager
async def warm_engine(config: EngineConfig) -> AsyncIterator[VllmEngine]:
    """An engine that has run a little of everything, so that nothing is measured the first time."""
    engine = await VllmEngine.start(config)
    try:
        watch = Stopwatch(engine, seed=1)
        for width in (2, 8):
            await watch.fork_join(watch.fork_prefix(200, width), width, 16, after=4)
        await watch.run(watch.text(300), 4)
        yield engine
    finally:
        engine.shutdown()


async def measure_joins(config: EngineConfig, repeats: int) -> list[dict[str, Any]]:
    """Joins of 256, 1024 and 4096 tokens in 2 to 8 branches."""
    cases = ((256, 2), (256, 8), (1024, 2), (1024, 4), (1024, 8), (4096, 4), (4096, 8))
    async with warm_engine(config) as engine:
        watch = Stopwatch(engine)
        return rows([await join_cost(watch, tokens, branches, repeats) for tokens, branches in cases])
