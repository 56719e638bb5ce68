"""Joins: the barrier at which a block's branches meet, and the plan by which their KV becomes one sequence's.

    branches, in any order    arrive(number, tokens, lease) ---+
                                                               |  Barrier: ordered, complete
    plan   tokens of branch 1 | tokens of branch 2 | ...  <----+
           sources: which lease supplies which of them

Pure: where a barrier lives (here, or in a merge actor) is a `Reduction`'s matter.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from multiverse.engine.references import KVReference
from multiverse.engine.segment import Source
from multiverse.serving.events import BranchFinish


@dataclass(frozen=True, slots=True)
class BlockKey:
    """One block of one request. ``owner``: whose requests these are; all of an owner's blocks go when it does."""

    owner: str
    request: str
    block: int


@dataclass(frozen=True, slots=True)
class OpenBlock:
    """A block whose branches run.

    fork: index at which every branch's own tokens begin. prefix: sources for what is before it, () where the first
    branch's lease holds that too. home: the replica that goes on behind the join, "" if there is only one.
    trace: the span that it belongs to (`multiverse.telemetry.traces`).
    """

    key: BlockKey
    width: int
    fork: int
    prefix: tuple[Source, ...] = ()
    home: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class BranchEnd:
    """A branch that is closed. ``number`` counts from 1; ``lease`` holds its KV, that of its closing tag included."""

    number: int
    tokens: tuple[int, ...]
    lease: str
    finish: BranchFinish


@dataclass(frozen=True, slots=True)
class JoinPlan:
    """What goes on behind a join.

    tokens: those of all branches, one behind the other. sources: their KV and the prefix's. adopted: the KV among it
    that other replicas made and the continuing one can read already, by the name that ``sources`` have for it.
    """

    tokens: tuple[int, ...]
    sources: tuple[Source, ...]
    leases: tuple[str, ...]
    adopted: tuple[tuple[str, KVReference], ...] = ()


@dataclass(slots=True)
class Barrier:
    """Collects the ends of one block's branches."""

    block: OpenBlock
    _ends: dict[int, BranchEnd] = field(default_factory=dict)

    def arrive(self, end: BranchEnd) -> bool:
        """Take in a branch's end; True when all are there. A branch that arrives again is as if it had once.

        Raises ValueError for a branch that the block does not have, or that arrives with other tokens.
        """
        if not 1 <= end.number <= self.block.width:
            raise ValueError(f"block {self.block.key} has {self.block.width} branches, number {end.number} is not one")
        known = self._ends.setdefault(end.number, end)
        if known.tokens != end.tokens:
            raise ValueError(f"branch {end.number} of block {self.block.key} arrived twice, with other tokens")
        return self.complete

    @property
    def complete(self) -> bool:
        return len(self._ends) == self.block.width

    def plan(self, references: Iterable[tuple[str, KVReference]] = ()) -> JoinPlan:
        """The plan of a complete block. references: by lease, KV that the continuing replica reads from elsewhere."""
        adopted = dict(references)
        ends = [self._ends[number] for number in range(1, self.block.width + 1)]
        covered = self.block.prefix[-1].stop if self.block.prefix else 0
        sources, tokens = list(self.block.prefix), list[int]()
        for end in ends:
            start = self.block.fork + len(tokens)
            stop = start + len(end.tokens)
            tokens += end.tokens
            # The first branch's lease also holds what is before the fork, as far as nothing else supplies it.
            begin = covered if end.number == 1 else start
            offset = covered if end.number == 1 else self.block.fork
            if end.lease in adopted:
                offset -= adopted[end.lease].start
            sources.append(Source(end.lease, begin, stop, offset))
        leases = tuple(end.lease for end in ends)
        return JoinPlan(tuple(tokens), tuple(sources), leases, tuple(adopted.items()))


class Join(Protocol):
    """One block's barrier, wherever it is."""

    async def arrive(self, end: BranchEnd) -> None: ...

    async def plan(self) -> JoinPlan:
        """Waits for all branches."""
        ...

    async def close(self) -> None:
        """The block is joined, or given up."""
        ...


class Reduction(Protocol):
    def open(self, block: OpenBlock) -> Join: ...


class LocalReduction:
    """Barriers in this process: for one engine, whose leases need no moving."""

    def open(self, block: OpenBlock) -> "LocalJoin":
        return LocalJoin(Barrier(block))


class LocalJoin:
    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier

    async def arrive(self, end: BranchEnd) -> None:
        self._barrier.arrive(end)

    async def plan(self) -> JoinPlan:
        return self._barrier.plan()

    async def close(self) -> None:
        return
