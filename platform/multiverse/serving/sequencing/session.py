"""What the regions of one request share."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

from multiverse.engine.segment import Delta, Sampling, Segment, SegmentEngine
from multiverse.serving.events import Event
from multiverse.serving.request import GenerationRequest
from multiverse.serving.sequencing.lease_book import LeaseBook
from multiverse.serving.sequencing.pieces import Codec
from multiverse.serving.sequencing.seeds import Path, derived_seed


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """max_model_len: tokens of prompt and answer together. trained: the checkpoint knows the tags."""

    max_model_len: int
    trained: bool


class Session:
    """One running request: its events, leases and segments in the background."""

    def __init__(
        self,
        engine: SegmentEngine,
        codec: Codec,
        limits: EngineLimits,
        request: GenerationRequest,
        emit: Callable[[Event], None],
    ) -> None:
        self.engine = engine
        self.codec = codec
        self.limits = limits
        self.request = request
        self.emit = emit
        self.leases = LeaseBook(engine, request.id)
        self.fallbacks: list[str] = []
        self._segments = itertools.count(1)
        self._blocks = itertools.count(1)
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def depth_limit(self) -> int:
        """Depth to which the model's own tags may open blocks. Untrained ones are only noise in a forced block."""
        forced = self.request.parallel.mode == "force" and not self.limits.trained
        return 0 if forced else self.request.parallel.max_depth

    def open(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        """Run a segment. The caller closes the stream."""
        return self.engine.run(segment)

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
