"""How a region grows: segment after segment, and where a block forks, its branches in waves and their join."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from multiverse.engine.segment import Source
from multiverse.serving.events import Block, BlockForked, BlockJoined, Branch, BranchFinished, FinishReason
from multiverse.serving.sequencing.budget import Budget, share
from multiverse.serving.sequencing.pieces import Outline, encode, read_outlines
from multiverse.serving.sequencing.region import Region
from multiverse.serving.sequencing.segments import prefill, sample
from multiverse.serving.sequencing.session import Session

LEAST_SAMPLED = 2
"""A branch that could not sample this many tokens, its closer included, is given up."""


async def grow(region: Region) -> FinishReason:
    """Let ``region`` grow to its end, a branch to its ``</Path>`` (the KV of that may still have to be made)."""
    while True:
        room, before = region.room, len(region.tokens)
        if room < 1:
            return region.end("length")
        step = await sample(region, room)
        match step.kind:
            case "fork":
                outlines = read_outlines(region.session.codec, region.tokens, step.outlines)
                if not await run_block(region, outlines):
                    return region.end("length", outlines)
            case "malformed":
                region.fall_back(step.reason, read_outlines(region.session.codec, region.tokens, step.outlines))
            case "closed":
                return "length" if step.forced else "stop"
            case "unclosed":
                return region.end("length" if step.forced else "stop")
            case "length":
                # Tags closed meanwhile may have set budget free.
                if len(region.tokens) == before:
                    return region.end("length")
            case "cut":
                return region.end("length")
            case "end":
                return region.end("stop")


async def run_block(region: Region, outlines: Sequence[Outline]) -> bool:
    """Run the block whose branches are due, and leave ``region`` behind ``<Conclusion>``.

    False, and nothing happened, if the budget holds no branches.
    """
    session = region.session
    heads = [len(encode(session.codec, outline.head)) + 1 for outline in outlines]
    beginnings = [len(encode(session.codec, outline.beginning)) for outline in outlines]
    fork = region.tracker.next_position
    part = share(region.budget, fork, region.rest(outlines), heads, session.request.parallel.max_branch_tokens)
    if not part.capped and min(part.tokens, part.ceiling - fork) < max(beginnings) + LEAST_SAMPLED:
        return False

    block, ordinal, began = session.next_block(), len(region.blocks) + 1, time.perf_counter()
    session.emit(BlockForked(region.place, block, tuple(outline.text for outline in outlines)))
    prefix = _SharedPrefix(session, region.release, len(outlines))
    branches = [
        Region(
            session,
            region.tokens,
            region.tracker.copy(),
            Budget(part.tokens, part.ceiling),
            place=(*region.place, (block, number)),
            path=(*region.path, (ordinal, number)),
            sources=region.sources,
            fallen=region.fallen,
            admitted=prefix.let_go,
        )
        for number in range(1, len(outlines) + 1)
    ]
    gate = asyncio.Semaphore(session.request.parallel.max_width)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_run_branch(gate, branch, outline, part.tokens >= needed + LEAST_SAMPLED))
                for branch, outline, needed in zip(branches, outlines, beginnings, strict=True)
            ]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    ended = [task.result() for task in tasks]

    _join(region, branches)
    region.fallen |= any(branch.fallen for branch in branches)
    region.cut |= any(
        branch.cut or (end.finish == "length" and not part.capped) for branch, end in zip(branches, ended, strict=True)
    )
    milliseconds = (time.perf_counter() - began) * 1e3
    region.blocks.append(Block(block, tuple(ended), milliseconds))
    session.emit(BlockJoined(region.place, block, milliseconds))
    region.write(encode(session.codec, ("\n", "<Conclusion>")))
    return True


@dataclass(slots=True)
class _SharedPrefix:
    """The KV that all branches of a block start from: given back when the last of them has read it."""

    session: Session
    leases: tuple[str, ...]
    readers: int

    async def let_go(self) -> None:
        self.readers -= 1
        if not self.readers:
            await self.session.leases.release(self.leases)


async def _run_branch(gate: asyncio.Semaphore, branch: Region, outline: Outline, worth_it: bool) -> Branch:
    """Run one branch to its ``</Path>`` and see to its KV. One that is not ``worth_it`` stays empty."""
    async with gate:
        began, prefix = time.perf_counter(), len(branch.tokens)
        finish: Literal["stop", "length", "given_up"]
        if worth_it:
            branch.begin(outline.beginning)
            finish = await grow(branch)
        else:
            branch.begin(outline.head)
            branch.end("length")
            finish = "given_up"
        own, milliseconds = tuple(branch.tokens[prefix:]), (time.perf_counter() - began) * 1e3
        branch.session.emit(BranchFinished(branch.place, finish, len(own), milliseconds))
        if not branch.holds_all:
            await prefill(branch)
        return Branch(outline.text, own, finish, milliseconds, tuple(branch.blocks))


def _join(region: Region, branches: Sequence[Region]) -> None:
    """Put the branches' tokens behind each other. The first lease holds the prefix too."""
    fork = len(region.tokens)
    sources: list[Source] = []
    for branch in branches:
        start, own = len(region.tokens), branch.tokens[fork:]
        region.append(own)
        (lease,) = branch.release
        first = not sources
        sources.append(Source(lease, 0 if first else start, start + len(own), 0 if first else fork))
    region.sources, region.release = tuple(sources), tuple(source.lease for source in sources)
