"""`Fleet`: many replicas as one `SegmentEngine`.

segment --> which replica?   its hint, or where most of its KV is, or where its prefix is cached and load is low
        --> KV elsewhere?    exported there, adopted here; what cannot be had is rebuilt by the engine's guard
        --> replica lost?    again on another one, behind the tokens that were delivered
"""

import asyncio
import logging
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from multiverse.engine.references import KVReference
from multiverse.engine.resume import Resumption
from multiverse.engine.segment import Delta, Export, Fork, Placed, Segment, Source
from multiverse.serving.fleet.ledger import Held, Ledger, export_of
from multiverse.serving.fleet.loads import Loads
from multiverse.serving.fleet.messages import Link, ReplicaLost, SegmentFailed, Status
from multiverse.serving.fleet.prefixes import Prefixes
from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.homes import choose_home
from multiverse.serving.placement.policies import POLICIES
from multiverse.serving.placement.traffic import Traffic
from multiverse.serving.placement.view import Block, ReplicaView
from multiverse.structure.layout import layout
from multiverse.structure.tags import Vocabulary

log = logging.getLogger(__name__)

ATTEMPTS = 8
"""How often one segment may lose its replica before its request fails."""


MEASURABLE = 16 * 2**20
"""Bytes between nodes from which on their speed is a measurement."""

PAUSE_SECONDS, MOST_SECONDS = 0.25, 8.0
"""A segment goes on at once where it loses its first replica; each further time it waits about twice as long."""


class NoReplica(RuntimeError):
    """No replica has been there for `Fleet.patience` seconds."""


@dataclass(slots=True)
class FleetFigures:
    """Counters since the start.

    lost: replicas that died or did not answer. resumed: segments that went on elsewhere; branches: those of branches
    among them. placed, decided: branches by where they ran, and where placement put them, "home" or "remote".
    moved: bytes of KV that replicas were given to read from another one, "near" (on its node) or "far".
    """

    lost: int = 0
    resumed: int = 0
    branches: int = 0
    pulled: int = 0
    recomputed: int = 0
    missing: int = 0
    placed: Counter[str] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)


class Fleet:
    def __init__(
        self,
        vocabulary: Vocabulary,
        costs: Costs,
        policy: str,
        patience: float = 120.0,
    ) -> None:
        """policy: one of `POLICIES`. patience: seconds to wait for a replica where there is none."""
        self._vocabulary = vocabulary
        self.costs = costs
        self.policy = policy
        self._patience = patience
        self._links: dict[str, Link] = {}
        self._status: dict[str, Status] = {}
        self._last: dict[str, Status] = {}
        self._loads = Loads()
        self._traffic = Traffic()
        self._ledger = Ledger()
        self._giving: set[asyncio.Future[None]] = set()
        self._prefixes = Prefixes()
        self._came = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []
        self.figures = FleetFigures()

    # ---- replicas -------------------------------------------------------------------------------------------------

    def add(self, link: Link) -> None:
        self._links[link.id] = link
        self._came.set()
        self._tell()

    def remove(self, replica: str) -> None:
        """It is gone: what it held is too."""
        if self._links.pop(replica, None) is None:
            return
        self._status.pop(replica, None)
        self._ledger.drop(replica)
        self._prefixes.drop(replica)
        if not self._links:
            self._came.clear()
        self._tell()

    def lose(self, replica: str) -> None:
        """It died, or does not answer."""
        self.figures.lost += replica in self._links
        self.remove(replica)

    def report(self, replica: str, status: Status) -> None:
        if replica in self._links:
            self._status[replica] = self._last[replica] = status
            self._measure_far()
            self._tell()

    def _measure_far(self) -> None:
        """The link between nodes is as fast as it has been so far."""
        stats = [status.stats for status in self._status.values()]
        moved, seconds = (sum(of.get(name, 0) for of in stats) for name in ("received_bytes", "received_seconds"))
        if moved >= MEASURABLE and seconds > 0:
            far = replace(self.costs.far, bytes_per_second=moved / seconds)
            self.costs = replace(self.costs, far=far)

    def watch(self, heard: Callable[[], None]) -> None:
        """Have ``heard`` called when replicas come, go, or tell how they are."""
        self._watchers.append(heard)

    def _tell(self) -> None:
        for heard in self._watchers:
            heard()

    async def someone(self) -> None:
        """Waits for the first replica. Raises NoReplica."""
        try:
            await asyncio.wait_for(self._came.wait(), self._patience)
        except TimeoutError:
            raise NoReplica(f"no engine replica has been there for {self._patience:g} s") from None

    @property
    def links(self) -> Mapping[str, Link]:
        return self._links

    @property
    def statuses(self) -> Mapping[str, Status]:
        return self._status

    @property
    def last_words(self) -> Mapping[str, Status]:
        """The last status of every replica there ever was."""
        return self._last

    @property
    def rows(self) -> int:
        """Segments that may run at once, on all replicas."""
        return sum(status.rows for status in self._status.values()) or len(self._links)

    @property
    def leases(self) -> int:
        return len(self._ledger)

    def where(self, lease: str) -> Held | None:
        return self._ledger.get(lease)

    # ---- SegmentEngine --------------------------------------------------------------------------------------------

    async def run(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        """See `SegmentEngine`. Raises SegmentFailed, ValueError, and NoReplica."""
        progress = Resumption(segment)
        current = segment
        for attempt in range(ATTEMPTS):
            link = await self._choose(current)
            try:
                async with aclosing(self._attempt(link, current)) as deltas:
                    async for item in deltas:
                        delta = progress.take(item)
                        if item.finish is not None and not _leaves_lease(segment, progress.delivered):
                            self._ledger.release(filter(None, (segment.lease,)))
                        if delta is not None:
                            yield delta
                        if item.finish is not None:
                            self._saw(segment, len(progress.delivered))
                            return
                raise SegmentFailed(f"segment {segment.id} ended without a reason")
            except ReplicaLost as error:
                log.warning("%s; segment %s goes on elsewhere", error, segment.id)
                self.figures.resumed += 1
                self.figures.branches += segment.closer is not None
                # Before anybody else finds out: it is not to be chosen again. By now it may be there anew.
                if self._links.get(link.id) is link:
                    self.lose(link.id)
            await asyncio.sleep(min(MOST_SECONDS, PAUSE_SECONDS * (2**attempt - 1)))
            current = replace(progress.attempt(), id=f"{segment.id}~{attempt + 1}")
        raise SegmentFailed(f"segment {segment.id} lost {ATTEMPTS} replicas, one after the other")

    async def release(self, leases: Sequence[str]) -> None:
        await asyncio.shield(self._giving_back(self._ledger.release(leases)))

    def place(self, fork: Fork) -> Placed:
        held = self._ledger.get(fork.lease)
        home = held.replica if held is not None else self._least_loaded()
        if len(self._links) < 2 or home not in self._links:
            self.figures.decided["home"] += fork.width
            return Placed((home,) * fork.width, home)
        recomputable = layout(self._vocabulary.kinds(list(fork.tokens))).guarded == 0
        views = self._views({})
        rows = sorted(view.rows for view in views)
        block = Block(
            fork.width,
            len(fork.tokens),
            self._traffic.branches.expected(fork.expected),
            recomputable,
            self._traffic.prompts(time.monotonic(), lambda most: bisect_right(rows, most), len(rows)),
        )
        replicas = POLICIES[self.policy].place(block, home, views, self.costs)
        self.figures.decided.update("home" if replica == home else "remote" for replica in replicas)
        return Placed(replicas, home, keep_prefix=any(replica != home for replica in replicas))

    def elsewhere(self, replica: str) -> str:
        others = [id for id in self._links if id != replica]
        return min(others, key=self._load) if others else replica

    # ---- inside ---------------------------------------------------------------------------------------------------

    async def _choose(self, segment: Segment) -> Link:
        """Its hint; else where most of the KV it reads is; else by cached prefix and load."""
        while True:
            if segment.replica in self._links:
                return self._links[segment.replica]
            held: Counter[str] = Counter()
            for source in segment.sources:
                there = self._ledger.get(source.lease)
                if there is not None and there.replica in self._links:
                    held[there.replica] += source.stop - source.start
            if held:
                return self._links[held.most_common(1)[0][0]]
            if self._links:
                cached = self._prefixes.cached(segment.tokens, segment.cache_salt)
                expected = self._traffic.openings.expected(segment.sampling.max_tokens)
                home = choose_home(len(segment.tokens), expected, self._views(cached), self.costs)
                prefill = self.costs.prefill(len(segment.tokens) - cached.get(home, 0))
                self._traffic.prompt(time.monotonic(), self._load(home), prefill)
                return self._links[home]
            await self.someone()

    async def _attempt(self, link: Link, segment: Segment) -> AsyncGenerator[Delta, None]:
        ready, elsewhere = await self._prepared(link, segment)
        if ready.lease is not None:
            exported = any(export.lease == ready.lease for export in ready.exports)
            self._ledger.hold(ready.lease, Held(link.id, exported, ready.branch_start or 0))
        if segment.branch_start is not None and not segment.prefill_only:
            self.figures.placed["home" if link.id == (segment.home or link.id) else "remote"] += 1
        context = prefill = len(segment.tokens)
        if segment.sources:
            prefill = 0
        else:
            prefill -= self._prefixes.cached(segment.tokens, segment.cache_salt).get(link.id, 0)
        self._loads.begin(link.id, segment.priority, context, prefill)
        admitted = False
        try:
            async with aclosing(link.run(ready)) as deltas:
                async for delta in deltas:
                    if not admitted:
                        admitted = True
                        self._loads.computed(link.id, prefill)
                        self._prefixes.add(link.id, segment.tokens, segment.cache_salt)
                        self._ledger.release(ready.release)
                        # Not awaited: cancelled here, the reader would not know that they are given back.
                        if elsewhere:
                            self._giving_back(self._ledger.release(elsewhere))
                    yield delta
        finally:
            if not admitted:
                self._loads.computed(link.id, prefill)
            self._loads.end(link.id, segment.priority, context)

    async def _prepared(self, link: Link, segment: Segment) -> tuple[Segment, list[str]]:
        """The segment as ``link`` can run it, and those leases it gives back that are on other replicas."""
        here: list[str] = []
        elsewhere: list[str] = []
        for lease in segment.release:
            held = self._ledger.get(lease)
            if held is None:
                continue
            alone = held.replica == link.id and not held.exported and not held.more
            (here if alone else elsewhere).append(lease)
        offered = dict(segment.adopted)
        adopted: dict[str, KVReference] = {}
        sources: list[Source] = []
        for source in segment.sources:
            held, offer = self._ledger.get(source.lease), offered.get(source.lease)
            if held is not None and held.replica == link.id:
                sources.append(replace(source, offset=source.offset + (offer.start if offer is not None else 0)))
                continue
            reference = await self._readable(offer, link) if offer is not None else None
            if reference is not None:
                source = replace(source, offset=source.offset + reference.start)
            elif held is not None:
                reference = await self._pull(link, segment, source, held)
            if reference is not None:
                name = f"{reference.id}@{segment.id}"
                adopted[name] = reference
                self.figures.moved["near" if reference.node == link.node else "far"] += reference.size
                # What it does not have, a prefix that was to be where the branch was, the engine finds or rebuilds.
                short = max(0, reference.start - source.offset)
                offset = source.offset + short - reference.start
                sources.append(replace(source, lease=name, start=source.start + short, offset=offset))
        exports: tuple[Export, ...] = ()
        if segment.lease is not None and segment.home and segment.home != link.id and segment.branch_start is not None:
            exports = (Export(export_of(segment.lease), segment.lease, segment.branch_start),)
        ready = replace(
            segment,
            sources=tuple(sources),
            adopted=tuple(adopted.items()),
            release=tuple(here),
            exports=exports,
        )
        return ready, elsewhere

    async def _pull(self, link: Link, segment: Segment, source: Source, held: Held) -> KVReference | None:
        """KV that another replica has, readable for ``link``; None where it is not worth it, or cannot be had."""
        owner = self._links.get(held.replica)
        if owner is None:
            return None
        count = source.stop - source.start
        guarded = layout(self._vocabulary.kinds(list(segment.tokens[: source.stop]))).guarded
        cached = self._prefixes.cached(segment.tokens, segment.cache_salt).get(link.id, 0)
        again = self.costs.prefill(max(0, source.stop - max(source.start, cached)))
        if guarded <= source.start and again < self.costs.transfer(count, owner.node == link.node):
            self.figures.recomputed += 1
            return None
        try:
            reference = await self._exported(owner, source, held, segment)
            readable = await self._readable(reference, link) if reference is not None else None
        except ReplicaLost:
            readable = None
        if readable is None:
            self.figures.missing += 1
            return None
        self.figures.pulled += 1
        return readable

    async def _exported(self, owner: Link, source: Source, held: Held, segment: Segment) -> KVReference | None:
        """An export of the lease that has what ``source`` wants; all who want the same share it."""
        if held.exported and held.start <= source.offset:
            return await owner.exported(export_of(source.lease))
        start = max((start for start in held.more if start <= source.offset), default=None)
        if start is None:
            start = source.offset
            held.more[start] = asyncio.ensure_future(owner.export(source.lease, start, segment))
        return await asyncio.shield(held.more[start])

    async def _readable(self, reference: KVReference, link: Link) -> KVReference | None:
        """As ``link`` can read it: on other nodes the object store has to carry it."""
        if reference.node == link.node or all(shard.carried is not None for shard in reference.shards):
            return reference
        owner = self._links.get(reference.replica)
        if owner is None:
            return None
        try:
            return await owner.carried(reference)
        except ReplicaLost:
            return None

    def _giving_back(self, released: Mapping[str, Held]) -> "asyncio.Future[None]":
        """Give leases and all their exports back, also where whoever waits is cancelled: nobody else knows them."""
        giving = asyncio.ensure_future(self._give_back(released))
        self._giving.add(giving)
        giving.add_done_callback(self._giving.discard)
        return giving

    async def _give_back(self, released: Mapping[str, Held]) -> None:
        """Each lease where it is."""
        ids: dict[str, list[str]] = {}
        for lease, held in released.items():
            exports = [export_of(lease)] if held.exported else []
            for export in held.more.values():
                with suppress(ReplicaLost):
                    reference = await export
                    exports += [reference.id] if reference is not None else []
            ids.setdefault(held.replica, []).extend([lease, *exports])
        for replica, mine in ids.items():
            if (link := self._links.get(replica)) is not None:
                with suppress(ReplicaLost):
                    await link.release(mine)

    def _saw(self, segment: Segment, tokens: int) -> None:
        """A segment ended well after so many tokens: others are expected to be alike."""
        if segment.branch_start is not None and not segment.prefill_only:
            self._traffic.branches.add(tokens)
        elif not segment.sources and not segment.prefill_only:
            self._traffic.openings.add(tokens)

    def _views(self, cached: Mapping[str, int]) -> list[ReplicaView]:
        views = []
        for id, link in self._links.items():
            status, load, rows = self._status.get(id), self._loads.of(id), self._load(id)
            free, capacity = (status.free, status.capacity) if status is not None else (2**31, 0)
            # Rows of other routers are taken to be like this one's.
            requests = load.requests * rows / load.rows if load.rows else float(rows)
            views.append(
                ReplicaView(
                    id, link.node, rows, 0, free, cached.get(id, 0), load.context, load.prefill, requests, capacity
                )
            )
        return views

    def _load(self, replica: str) -> int:
        status = self._status.get(replica)
        rows = self._loads.of(replica).rows
        return max(rows, status.running + status.waiting if status is not None else 0)

    def _least_loaded(self) -> str:
        return min(self._links, key=self._load, default="")


def _leaves_lease(segment: Segment, delivered: Sequence[int]) -> bool:
    """Whether a segment that ended well left its lease (see `Segment.lease`)."""
    return segment.prefill_only or bool(delivered and delivered[-1] in (*segment.stop_ids, segment.closer))
