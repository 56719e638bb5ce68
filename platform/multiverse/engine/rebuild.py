"""KV of closed blocks that is missing (evicted, preempted, an earlier turn of a chat) is made anew, innermost first.

It goes the way of a live join: the prefix and each branch as prefill-only segments, each alone, so none sees a sibling.
"""

import asyncio
import itertools
from collections.abc import Sequence

from multiverse.engine.segment import Sampling, Segment, SegmentEngine, Source
from multiverse.structure.layout import Block, Layout, layout
from multiverse.structure.tags import Vocabulary

Supply = tuple[list[Source], list[str]]
"""Sources for the beginning of a sequence, and the leases made for them."""


class Rebuilder:
    def __init__(self, engine: SegmentEngine, vocabulary: Vocabulary) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._numbers = itertools.count()

    async def rebuild(self, tokens: list[int], like: Segment, base: Sequence[Source] = ()) -> Supply:
        """Make the KV of ``tokens`` up to where plain text may go on, for ``like``'s request.

        base: sources for a beginning of the tokens that is there already. The last block past it is taken apart: its
        prefix, then each branch behind that prefix. Each part that itself holds closed blocks goes the same way.
        """
        covered = base[-1].stop if base else 0
        block = _last_block(layout(self._vocabulary.kinds(tokens)), covered)
        if block is None:
            return list(base), []
        prefix, sources, leases = tokens[: block.fork], list(base), list[str]()
        try:
            if block.fork > covered:
                sources, leases = await self._prefill(prefix, like, base)
            behind = list(sources)
            parts = await asyncio.gather(
                *(self._prefill(prefix + tokens[span.start : span.end], like, behind) for span in block.spans),
                return_exceptions=True,
            )
            leases += [lease for part in parts if not isinstance(part, BaseException) for lease in part[1]]
            for part, span in zip(parts, block.spans, strict=True):
                if isinstance(part, BaseException):
                    raise part
                own = [source for source in part[0] if source.stop > block.fork]
                sources += [_moved(source, block.fork, span.start - block.fork) for source in own]
        except BaseException:
            await self._engine.release(leases)
            raise
        return sources, leases

    async def _prefill(self, tokens: list[int], like: Segment, base: Sequence[Source]) -> Supply:
        """Sources that cover all of ``tokens``."""
        sources, leases = await self.rebuild(tokens, like, base)
        lease = f"rebuild-{next(self._numbers)}"
        segment = Segment(
            id=lease,
            tokens=tokens,
            sampling=Sampling(max_tokens=1, temperature=0.0),
            sources=tuple(sources),
            lease=lease,
            release=tuple(leases),
            prefill_only=True,
            priority=like.priority,
            cache_salt=like.cache_salt,
        )
        try:
            async for _ in self._engine.run(segment):
                pass
        except BaseException:
            await self._engine.release([*leases, lease])
            raise
        return [Source(lease, 0, len(tokens), 0)], [lease]


def _moved(source: Source, floor: int, by: int) -> Source:
    """The part of ``source`` past token ``floor``, supplying tokens ``by`` further behind."""
    start = max(source.start, floor)
    return Source(source.lease, start + by, source.stop + by, source.offset + start - source.start)


def _last_block(placed: Layout, covered: int) -> Block | None:
    """The last block that hides keys past ``covered`` tokens and lies in no branch of another such block, or None."""
    last = None
    for block in placed.blocks:
        hides = any(span.start > span.fork and span.end > covered for span in block.spans)
        if hides and (last is None or block.fork >= last.spans[-1].end):
            last = block
    return last
