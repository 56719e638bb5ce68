"""How a region grows: segment after segment, and where a block forks, its branches in waves and their join."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from multiverse.engine.segment import Placed
from multiverse.serving.events import (
    Block,
    BlockForked,
    BlockJoined,
    Branch,
    BranchFinish,
    BranchFinished,
    BranchRetried,
    FinishReason,
)
from multiverse.serving.joins import BranchEnd, Join, OpenBlock
from multiverse.serving.sequencing.budget import Share, share
from multiverse.serving.sequencing.pieces import Outline, encode, read_outlines
from multiverse.serving.sequencing.region import Region
from multiverse.serving.sequencing.segments import prefill, sample
from multiverse.telemetry import traces

LEAST_SAMPLED = 2
"""A branch that could not sample this many tokens, its closer included, is given up."""

RETRIES = 1
"""How often a branch whose segment takes too long goes on on another replica."""


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
            case "late" if region.late <= RETRIES and not region.session.time_is_up():
                region.session.emit(BranchRetried(region.place))
                region.replica = region.session.engine.elsewhere(region.replica)
            case "late":
                return region.end("length")
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
    placed = session.place(region.context, region.release, len(outlines), part.tokens)
    session.emit(
        BlockForked(
            region.place,
            block,
            tuple(outline.text for outline in outlines),
            placed.replicas if any(placed.replicas) else (),
        )
    )
    forked = _Fork(region, block, ordinal, part, placed, set(range(1, len(outlines) + 1)))
    join = session.reduction.open(
        OpenBlock(
            session.key(block),
            len(outlines),
            len(region.context),
            region.sources if placed.keep_prefix else (),
            placed.home,
            session.trace(region.place),
        )
    )
    gate = asyncio.Semaphore(session.request.parallel.max_width)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    _run_branch(gate, join, forked, number, outline, part.tokens >= needed + LEAST_SAMPLED)
                )
                for number, (outline, needed) in enumerate(zip(outlines, beginnings, strict=True), 1)
            ]
        branches, ended = zip(*(task.result() for task in tasks), strict=True)
        with traces.span("join", session.trace(region.place), block=block, width=len(outlines)):
            await _join(region, join, placed)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    finally:
        await join.close()

    region.fallen |= any(branch.fallen for branch in branches)
    region.cut |= any(
        branch.cut or (end.finish == "length" and not part.capped) for branch, end in zip(branches, ended, strict=True)
    )
    milliseconds = (time.perf_counter() - began) * 1e3
    region.blocks.append(Block(block, ended, milliseconds))
    session.emit(BlockJoined(region.place, block, milliseconds))
    region.write(encode(session.codec, ("\n", "<Conclusion>")))
    if not session.by_kv:
        region.spell_out()
    return True


@dataclass(frozen=True, slots=True)
class _Fork:
    """A block's branches, all to start behind ``region``. readers: those that have not read the KV up to there.

    That KV is given back when the last of them has read it, or, where they run on several replicas, when they have met.
    """

    region: Region
    block: int
    ordinal: int
    part: Share
    placed: Placed
    readers: set[int]

    def branch(self, number: int) -> Region:
        """The branch with nothing in it. One that has read the prefix and starts again computes it."""
        region = self.region
        return Region(
            region.session,
            region.tokens,
            region.tracker.copy(),
            self.part.budget(),
            place=(*region.place, (self.block, number)),
            path=(*region.path, (self.ordinal, number)),
            sources=region.sources if number in self.readers else (),
            fallen=region.fallen,
            admitted=partial(self._let_go, number),
            context=None if region.context is region.tokens else region.context,
            replica=self.placed.replicas[number - 1],
            home=self.placed.home,
        )

    async def _let_go(self, number: int) -> None:
        if number in self.readers:
            self.readers.remove(number)
            if not self.readers and not self.placed.keep_prefix:
                await self.region.session.leases.release(self.region.release)


async def _run_branch(
    gate: asyncio.Semaphore, join: Join, fork: _Fork, number: int, outline: Outline, worth_it: bool
) -> tuple[Region, Branch]:
    """Run one branch to its ``</Path>``, see to its KV and have it join. One that is not ``worth_it`` stays empty."""
    session = fork.region.session
    async with gate:
        with session.branch_span((*fork.region.place, (fork.block, number))):
            return await _grow_branch(join, fork, number, outline, worth_it)


async def _grow_branch(join: Join, fork: _Fork, number: int, outline: Outline, worth_it: bool) -> tuple[Region, Branch]:
    branch, session = fork.branch(number), fork.region.session
    began = time.perf_counter()
    finish: BranchFinish
    if not worth_it:
        finish = "given_up"
    elif session.time_is_up():
        finish = "dropped"
    else:
        branch.begin(outline.beginning)
        finish = await grow(branch)
        if session.telling.taken_back(branch.place):
            await session.leases.release(branch.release)
            session.telling.begin_again(branch.place)
            branch, finish = fork.branch(number), "dropped"
        elif branch.late and (branch.late > RETRIES or session.time_is_up()):
            finish = "timeout"
    if finish in ("given_up", "dropped"):
        branch.begin(outline.head)
        branch.end("length")
    ran = branch.replica
    if finish in ("given_up", "dropped", "timeout"):
        # Its KV is still to be made: where it is needed, not where it took too long.
        branch.replica = branch.home
    own, milliseconds = tuple(branch.tokens[branch.begun_at :]), (time.perf_counter() - began) * 1e3
    session.emit(BranchFinished(branch.place, finish, len(own), milliseconds))
    lease = ""
    if session.by_kv:
        if not branch.holds_all:
            await prefill(branch)
        (lease,) = branch.release
    await join.arrive(BranchEnd(number, own, lease, finish))
    return branch, Branch(outline.text, own, finish, milliseconds, tuple(branch.blocks), ran)


async def _join(region: Region, join: Join, placed: Placed) -> None:
    """Put the branches' tokens behind each other, and find where their KV is."""
    plan = await join.plan()
    prefix = region.release if placed.keep_prefix else ()
    region.append(plan.tokens)
    region.replica = placed.home
    if region.session.by_kv:
        region.sources, region.release = plan.sources, (*prefix, *plan.leases)
        region.adopted = plan.adopted
    else:
        await region.session.leases.release(region.release)
        region.sources, region.release = (), ()
