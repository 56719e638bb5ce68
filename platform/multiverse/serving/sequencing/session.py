"""What the regions of one request share."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from multiverse.engine.segment import Delta, Fork, Placed, Sampling, Segment, SegmentEngine
from multiverse.serving.events import Event, Place
from multiverse.serving.joins import BlockKey, Reduction
from multiverse.serving.request import GenerationRequest, Reduce
from multiverse.serving.sequencing.lease_book import LeaseBook
from multiverse.serving.sequencing.pieces import Codec
from multiverse.serving.sequencing.rows import Rows
from multiverse.serving.sequencing.seeds import Path, derived_seed
from multiverse.serving.sequencing.telling import Telling
from multiverse.telemetry import traces


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """max_model_len: tokens of prompt and answer together. trained: the checkpoint knows the tags.

    branch_seconds: how long one stretch of a branch may take; then it goes on on another replica, and if that takes as
        long too, the branch is closed. answer_seconds: when branches that have not ended become empty paths, or, if the
        client has seen something of them, are closed; and no more open.
    reduce: how branches are merged unless a request says otherwise.
    """

    max_model_len: int
    trained: bool
    branch_seconds: float | None = None
    answer_seconds: float | None = None
    reduce: Reduce = "kv"


@dataclass(frozen=True, slots=True)
class Shared:
    """What all requests of one sequencer share. owner: its name, unique among all that use the same reduction."""

    rows: Rows
    reduction: Reduction
    owner: str


class Session:
    """One running request: its events, leases and segments in the background."""

    def __init__(
        self,
        engine: SegmentEngine,
        codec: Codec,
        limits: EngineLimits,
        request: GenerationRequest,
        emit: Callable[[Event], None],
        shared: "Shared",
    ) -> None:
        self.engine = engine
        self.codec = codec
        self.limits = limits
        self.request = request
        self.telling = Telling(emit, request.seen)
        self.emit = self.telling.emit
        self.leases = LeaseBook(engine, request.id)
        self.fallbacks: list[str] = []
        self.reduction = shared.reduction
        self.by_kv = request.parallel.reduce == "kv"
        self._shared = shared
        self._began = time.monotonic()
        self._time_is_up = False
        self._segments = itertools.count(1)
        self._blocks = itertools.count(1)
        self._draining: set[asyncio.Task[None]] = set()
        self._spans: dict[Place, str] = {}

    @property
    def depth_limit(self) -> int:
        """Depth to which the model's own tags may open blocks. Untrained ones are only noise in a forced block."""
        forced = self.request.parallel.mode == "force" and not self.limits.trained
        return 0 if forced else self.request.parallel.max_depth

    def key(self, block: int) -> BlockKey:
        return BlockKey(self._shared.owner, self.request.id, block)

    def place(self, tokens: Sequence[int], leases: Sequence[str], width: int, expected: int) -> Placed:
        lease = leases[0] if len(leases) == 1 else ""
        return self.engine.place(Fork(tokens, lease, width, expected, self.request.arrival))

    def time_is_up(self) -> bool:
        """Whether branches are to end now. Whoever finds out first takes back those that the client has not seen."""
        if not self._time_is_up and self._left() <= 0:
            self._time_is_up = True
            self.telling.take_back_unseen()
        return self._time_is_up

    def _left(self) -> float:
        seconds = self.limits.answer_seconds
        return math.inf if seconds is None else self._began + seconds - time.monotonic()

    @asynccontextmanager
    async def hurried(self, place: Place) -> AsyncIterator[None]:
        """A place in the batch, held while a segment at ``place`` runs. Only branches are hurried: raises TimeoutError.

        What the segment waits for its place is not held against its replica.
        """
        if place and self.time_is_up():
            raise TimeoutError
        left, stretch = (self._left(), self.limits.branch_seconds) if place else (math.inf, None)
        async with asyncio.timeout(None if left == math.inf else left), self.row(), asyncio.timeout(stretch):
            yield

    def row(self) -> AbstractAsyncContextManager[None]:
        """A place in the batch, held while a segment runs."""
        return self._shared.rows.row(self.request.id, self.request.arrival)

    def open(self, segment: Segment, place: Place = ()) -> AsyncGenerator[Delta, None]:
        """Run a segment of ``place``. The caller closes the stream."""
        return self._traced(segment, place) if traces.enabled() else self.engine.run(segment)

    async def _traced(self, segment: Segment, place: Place) -> AsyncGenerator[Delta, None]:
        tokens, alone = len(segment.tokens), segment.prefill_only
        parent = self.trace(place)
        with traces.span(
            "segment", parent, refusal=ValueError, segment=segment.id, prompt_tokens=tokens, prefill_only=alone
        ) as trace:
            async with aclosing(self.engine.run(replace(segment, trace=trace))) as deltas:
                async for delta in deltas:
                    yield delta

    def trace(self, place: Place) -> str:
        """The span of the branch at ``place``, or of the request."""
        return self._spans.get(place, self.request.trace)

    @contextmanager
    def branch_span(self, place: Place) -> Iterator[None]:
        """Around a branch."""
        block, number = place[-1]
        with traces.span("branch", self.trace(place[:-1]), block=block, branch=number) as self._spans[place]:
            yield

    def segment_id(self) -> str:
        return f"{self.request.id}/{next(self._segments)}"

    def next_block(self) -> int:
        return next(self._blocks)

    def sampling(self, max_tokens: int, path: Path, ordinal: int) -> Sampling:
        sampling = self.request.sampling
        return replace(sampling, max_tokens=max_tokens, seed=derived_seed(sampling.seed, path, ordinal))

    def drain(self, stream: AsyncGenerator[Delta, None]) -> None:
        """Let a segment take its last step, which makes the KV of its closer, without anybody waiting for it."""

        async def rest() -> None:
            async for _ in stream:
                pass

        self._draining.add(asyncio.create_task(rest()))

    async def settle(self) -> None:
        """The request ended well: wait for what still drains and give back all leases. Raises what a drain raised."""
        await asyncio.gather(*self._draining)
        await self.leases.release_all()

    async def abandon(self) -> None:
        """The request ended otherwise."""
        for task in self._draining:
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)
        await self.leases.release_all()
