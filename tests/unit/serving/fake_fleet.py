"""A fleet whose replicas are fake engines: they check every piece of KV they are told to read, and may die."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from multiverse.engine.measure_costs import EngineCosts
from multiverse.engine.measure_costs import Link as CostLink
from multiverse.engine.references import KVReference
from multiverse.engine.segment import Delta, Segment
from multiverse.serving.fleet.fleet import Fleet
from multiverse.serving.fleet.messages import ReplicaLost, Status
from multiverse.serving.fleet.reducing import Arrival, FleetReduction, Reducer
from multiverse.serving.joins import BlockKey, JoinPlan, OpenBlock
from multiverse.serving.placement.costs import Costs
from multiverse.structure.layout import layout
from tests.unit.serving.fake_engine import EngineDied, FakeEngine, Model, WordCodec

# Moving KV is cheap here and computing it is dear: whatever can be pulled is.
COSTS = Costs(
    EngineCosts(((1, 0.01), (8, 0.02)), 0.0, 1.0, 1.0, 0.01), CostLink(0.0, 1e12), CostLink(0.001, 1e9), kv_bytes=1
)


def resumable(codec: WordCodec, continuations: Mapping[str, str]) -> Model:
    """`script`, for segments that may begin anywhere within what a continuation says."""
    lines = [(tuple(codec.encode(key)), tuple(codec.encode(key + text))) for key, text in continuations.items()]

    def model(segment: Segment) -> Iterator[int]:
        tokens, best, rest = tuple(segment.tokens), 0, ()
        for key, line in lines:
            for length in range(len(key), len(line)):
                if length > best and tokens[-length:] == line[:length]:
                    best, rest = length, line[length:]
        assert best, f"no continuation for {codec.decode(tokens)[-60:]!r}"
        return iter(rest)

    return model


@dataclass
class Exported:
    tokens: tuple[int, ...]
    start: int


class FakeReplica(FakeEngine):
    """An engine that also exports and adopts."""

    exports: dict[str, Exported]

    async def _admit(self, segment: Segment) -> None:
        adopted = {name: reference for name, reference in segment.adopted}
        kinds = self.codec.vocabulary.kinds
        positions = layout(kinds(segment.tokens)).positions
        for source in segment.sources:
            if source.lease not in adopted:
                continue
            found = adopted[source.lease].shards[0].carried
            begin = found.start + source.offset
            end = begin + source.stop - source.start
            assert begin >= found.start
            assert found.tokens[begin:end] == tuple(segment.tokens[source.start : source.stop]), "KV of other tokens"
            there = layout(kinds(found.tokens)).positions[begin:end]
            assert np.array_equal(there, positions[source.start : source.stop]), "KV of other positions"
        own = tuple(source for source in segment.sources if source.lease not in adopted)
        await super()._admit(replace(segment, sources=own))


@dataclass
class FakeLink:
    """A `Link` to a fake replica. dead: every call raises ReplicaLost."""

    id: str
    node: str
    engine: FakeReplica
    dead: bool = False
    exports: dict[str, Exported] = field(default_factory=dict)
    waiting: dict[str, asyncio.Event] = field(default_factory=dict)

    def _check(self) -> None:
        if self.dead:
            raise ReplicaLost(f"{self.id} is dead")

    async def run(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        self._check()
        for export in segment.exports:
            self.waiting[export.id] = asyncio.Event()
        queue: asyncio.Queue[Delta | BaseException] = asyncio.Queue()

        async def pump() -> None:
            # As on a real replica: the segment takes its last step whether or not anybody listens.
            try:
                async for delta in self.engine.run(segment):
                    queue.put_nowait(delta)
            except EngineDied as error:
                self.dead = True
                queue.put_nowait(ReplicaLost(str(error)))
            except Exception as error:
                queue.put_nowait(error)
            finally:
                self._export(segment)

        task = asyncio.create_task(pump())
        ended = False
        try:
            while not ended:
                item = await queue.get()
                self._check()
                if isinstance(item, BaseException):
                    raise item
                ended = item.finish is not None
                yield item
        finally:
            if not ended:
                task.cancel()

    def _export(self, segment: Segment) -> None:
        for export in segment.exports:
            if export.lease in self.engine.held:
                self.exports[export.id] = Exported(self.engine.held[export.lease], export.start)
            self.waiting[export.id].set()

    def _reference(self, id: str) -> KVReference | None:
        from multiverse.engine.references import Shard

        found = self.exports.get(id)
        if found is None:
            return None
        shard = Shard("", 0, len(found.tokens) - found.start, 0, found)
        return KVReference(id, found.start, len(found.tokens), 0, 1, "", 1, "", self.id, self.node, (shard,))

    async def release(self, ids: Sequence[str]) -> None:
        self._check()
        for id in ids:
            self.exports.pop(id, None)
        await self.engine.release(ids)

    async def export(self, lease: str, start: int, like: Segment) -> KVReference | None:
        self._check()
        while lease in self.engine.running:
            await self.engine.running[lease].wait()
        await asyncio.sleep(0)
        if lease not in self.engine.held:
            return None
        id = f"pulled-{lease}-{start}"
        self.exports[id] = Exported(self.engine.held[lease], start)
        return self._reference(id)

    async def exported(self, id: str) -> KVReference | None:
        self._check()
        if id in self.waiting:
            await self.waiting[id].wait()
        self._check()
        return self._reference(id)

    async def carried(self, reference: KVReference) -> KVReference | None:
        self._check()
        return reference

    async def status(self) -> Status:
        self._check()
        return Status(len(self.engine.open), 0, 10_000, 10_000, 64)

    async def close(self) -> None:
        return


class FakeReplicas:
    """What a reducer asks of replicas."""

    def __init__(self, links: Sequence[FakeLink]) -> None:
        self._links = {link.id: link for link in links}

    def node(self, replica: str) -> str:
        return self._links[replica].node if replica in self._links else ""

    async def exported(self, replica: str, owner: str, id: str) -> KVReference | None:
        return await self._links[replica].exported(id)

    async def carried(self, replica: str, owner: str, reference: KVReference) -> KVReference:
        carried = await self._links[replica].carried(reference)
        assert carried is not None
        return carried


@dataclass
class FakeReducer:
    """A `ReducerLink`. dies_at: the number of the call that it does not survive."""

    reducer: Reducer
    dies_at: int | None = None
    calls: int = 0

    async def arrive(self, block: OpenBlock, arrivals: Sequence[Arrival]) -> JoinPlan | None:
        self._count()
        return await self.reducer.arrive(block, arrivals)

    async def close(self, key: BlockKey) -> None:
        self._count()
        self.reducer.close(key)

    def _count(self) -> None:
        self.calls += 1
        if self.dies_at is not None and self.calls >= self.dies_at:
            raise ConnectionError("the reducer is gone")


@dataclass
class FakeCluster:
    links: list[FakeLink]
    fleet: Fleet
    reducers: dict[str, FakeReducer]
    reduction: FleetReduction

    @classmethod
    def of(
        cls,
        codec: WordCodec,
        model: Model,
        replicas: int = 3,
        nodes: int = 1,
        jitter: int | None = None,
        deaths: dict[int, int] | None = None,
        reducer_dies_at: int | None = None,
        policy: str = "spread",
    ) -> "FakeCluster":
        """deaths: replica number to the number of its delta in whose place it dies."""
        links = [
            FakeLink(f"r{n}", f"n{n % nodes}", FakeReplica(codec, model, jitter, (deaths or {}).get(n)))
            for n in range(replicas)
        ]
        fleet = Fleet(codec.vocabulary, COSTS, policy, patience=1.0)
        for link in links:
            fleet.add(link)
        found = FakeReplicas(links)
        reducers = {"m0": FakeReducer(Reducer(found), reducer_dies_at), "m1": FakeReducer(Reducer(found))}
        return cls(links, fleet, reducers, FleetReduction(lambda: reducers, fleet.where))

    @property
    def left(self) -> list[str]:
        """What living replicas still hold or run, and what the router still knows of."""
        held = [f"{link.id}: {x}" for link in self.links if not link.dead for x in (*link.engine.held, *link.exports)]
        open_ = [f"{link.id} runs {x}" for link in self.links if not link.dead for x in link.engine.open]
        blocks = [
            f"{name} has a block" for name, it in self.reducers.items() if it.reducer.open_blocks and not it.dies_at
        ]
        return held + open_ + blocks + ([f"{self.fleet.leases} leases known"] if self.fleet.leases else [])
