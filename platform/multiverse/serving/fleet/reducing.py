"""The merge actor's work, and a router's side of it.

A reducer holds the barriers of open blocks: it takes in the branches' ends, finds out where each one's KV can be read
by the replica that will go on, and when all are there it gives the plan. No KV passes through it. All it knows can be
told again: a router keeps its blocks' ends, and where a reducer is lost it tells them to another one.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from multiverse.engine.references import KVReference
from multiverse.serving.fleet.ledger import Held, export_of
from multiverse.serving.fleet.messages import ReplicaLost
from multiverse.serving.joins import Barrier, BlockKey, BranchEnd, JoinPlan, OpenBlock
from multiverse.telemetry import traces

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A branch's end and the replica that holds its lease. exported: it has made its KV readable for others."""

    end: BranchEnd
    replica: str
    exported: bool


class Replicas(Protocol):
    """What a reducer asks of engine replicas. Raises ReplicaLost."""

    async def exported(self, replica: str, owner: str, id: str) -> KVReference | None: ...

    async def carried(self, replica: str, owner: str, reference: KVReference) -> KVReference: ...

    def node(self, replica: str) -> str:
        """ "" for one that is not known."""
        ...


@dataclass(slots=True)
class _Open:
    barrier: Barrier
    references: dict[str, "asyncio.Task[KVReference | None]"] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)


class Reducer:
    """seconds: age at which a block is taken for forgotten."""

    def __init__(self, replicas: Replicas, seconds: float = 900.0) -> None:
        self._replicas = replicas
        self._seconds = seconds
        self._blocks: dict[BlockKey, _Open] = {}
        self.joined = 0

    @property
    def open_blocks(self) -> int:
        return len(self._blocks)

    async def arrive(self, block: OpenBlock, arrivals: Sequence[Arrival]) -> JoinPlan | None:
        """Take in ends of a block's branches; the plan when all are there. What is told twice is as if told once.

        Raises ValueError as `Barrier.arrive` does.
        """
        with traces.span("reduce", block.trace, block=block.key.block, arrivals=len(arrivals)):
            return await self._arrive(block, arrivals)

    async def _arrive(self, block: OpenBlock, arrivals: Sequence[Arrival]) -> JoinPlan | None:
        self._expire()
        state = self._blocks.setdefault(block.key, _Open(Barrier(block)))
        for arrival in arrivals:
            state.barrier.arrive(arrival.end)
            lease = arrival.end.lease
            if arrival.exported and lease not in state.references:
                # At once, not when all are there: the last branch need not wait for it.
                state.references[lease] = asyncio.create_task(self._refer(block, arrival))
        if not state.barrier.complete:
            return None
        found = await asyncio.gather(*state.references.values())
        self.joined += 1
        pairs = zip(state.references, found, strict=True)
        return state.barrier.plan((lease, reference) for lease, reference in pairs if reference is not None)

    def close(self, key: BlockKey) -> None:
        state = self._blocks.pop(key, None)
        for task in state.references.values() if state is not None else ():
            task.cancel()

    async def _refer(self, block: OpenBlock, arrival: Arrival) -> KVReference | None:
        owner = block.key.owner
        try:
            reference = await self._replicas.exported(arrival.replica, owner, export_of(arrival.end.lease))
            if reference is not None and reference.node != self._replicas.node(block.home):
                reference = await self._replicas.carried(arrival.replica, owner, reference)
            return reference
        except ReplicaLost as error:
            log.warning("the KV of branch %d is lost: %s", arrival.end.number, error)
            return None

    def _expire(self) -> None:
        oldest = time.monotonic() - self._seconds
        for key in [key for key, state in self._blocks.items() if state.since < oldest]:
            self.close(key)


class ReducerLink(Protocol):
    """A router's connection to one reducer. Raises whatever the transport raises when it is lost."""

    async def arrive(self, block: OpenBlock, arrivals: Sequence[Arrival]) -> JoinPlan | None: ...

    async def close(self, key: BlockKey) -> None: ...


class FleetReduction:
    """A `Reduction` over reducers in other processes. A request stays with one as long as it lives."""

    def __init__(self, reducers: Callable[[], Mapping[str, ReducerLink]], where: Callable[[str], Held | None]) -> None:
        """reducers: those that live now. where: which replica has a lease."""
        self._reducers = reducers
        self._where = where
        self.refilled = 0

    def open(self, block: OpenBlock) -> "FleetJoin":
        return FleetJoin(self, block)

    def choose(self, request: str, without: set[str]) -> tuple[str, ReducerLink] | None:
        links = sorted((name, link) for name, link in self._reducers().items() if name not in without)
        return links[zlib.crc32(request.encode()) % len(links)] if links else None

    def arrival(self, end: BranchEnd, home: str) -> Arrival:
        held = self._where(end.lease)
        if held is None:
            return Arrival(end, "", False)
        return Arrival(end, held.replica, held.exported and held.replica != home)


class FleetJoin:
    """One block at a reducer. What was told to it is kept here until the block is closed."""

    def __init__(self, reduction: FleetReduction, block: OpenBlock) -> None:
        self._reduction = reduction
        self._block = block
        self._told: list[Arrival] = []
        self._lost: set[str] = set()
        self._plan: JoinPlan | None = None

    async def arrive(self, end: BranchEnd) -> None:
        arrival = self._reduction.arrival(end, self._block.home)
        self._told.append(arrival)
        self._plan = await self._tell((arrival,)) or self._plan

    async def plan(self) -> JoinPlan:
        return self._plan or await self._tell(self._told) or self._alone()

    async def close(self) -> None:
        chosen = self._reduction.choose(self._block.key.request, self._lost)
        if self._told and chosen is not None:
            try:
                await chosen[1].close(self._block.key)
            except Exception as error:
                log.warning("reducer %s could not be told that a block is over: %s", chosen[0], error)

    async def _tell(self, arrivals: Sequence[Arrival]) -> JoinPlan | None:
        while (chosen := self._reduction.choose(self._block.key.request, self._lost)) is not None:
            name, link = chosen
            try:
                return await link.arrive(self._block, arrivals)
            except Exception as error:
                log.warning("reducer %s is lost (%s): its blocks are told to another one", name, error)
                self._lost.add(name)
                self._reduction.refilled += 1
                arrivals = self._told
        return None

    def _alone(self) -> JoinPlan:
        """No reducer is there: the join goes on without one."""
        barrier = Barrier(self._block)
        for arrival in self._told:
            barrier.arrive(arrival.end)
        return barrier.plan()
