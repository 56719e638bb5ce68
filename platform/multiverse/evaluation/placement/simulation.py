"""Discrete-event simulation of requests with one block each on many replicas, to compare placement policies.

A request: prefill at home, some tokens, a block whose branches run where the policy says, the join at home, some
tokens. Moved KV takes the links of both replicas, each of which is busy with one transfer after the other; a join pulls
what other replicas have.
"""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.evaluation.placement.replicas import Clock, Replica
from multiverse.evaluation.placement.router import Ledger, Share
from multiverse.evaluation.placement.workload import LONGEST, Chain
from multiverse.serving.placement.costs import Costs
from multiverse.serving.placement.homes import SHORTLIST, choose_home
from multiverse.serving.placement.policies import Placement
from multiverse.serving.placement.traffic import Lengths, Traffic
from multiverse.serving.placement.view import Block, ReplicaView

ADMISSION = 0.1
"""Seconds after which a request that found no room in any cache is looked at again."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """replicas_per_node: those that share a node. kv_tokens: of one replica's cache. staleness: seconds between the
    reports of a replica."""

    replicas: int
    replicas_per_node: int = 8
    kv_tokens: int = 93_184
    staleness: float = 0.1


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds from arrival to end; tokens decoded per second; share of the branches that did not run at home."""

    mean: float
    p99: float
    tokens_per_second: float
    remote: float


@dataclass(slots=True)
class _Request:
    """kv: tokens of home's cache that it has or will need, as far as the router knows."""

    number: int
    chain: Chain
    home: Replica
    kv: int
    branches_left: int
    ended: float | None = None


@dataclass(slots=True)
class _Guests:
    """Branches of a request on one replica. row: what the router takes each for."""

    request: _Request
    replica: Replica
    row: Share
    lengths: list[int]


class Simulation:
    def __init__(self, chains: Sequence[Chain], policy: Placement, costs: Costs, cluster: Cluster) -> None:
        self._chains, self._policy, self._costs = chains, policy, costs
        self._clock = Clock()
        self._replicas = [
            Replica(self._clock, costs, index, f"node-{index // cluster.replicas_per_node:04d}", cluster.kv_tokens)
            for index in range(cluster.replicas)
        ]
        self._by_id = {replica.id: replica for replica in self._replicas}
        self._ledger = Ledger(self._clock, self._replicas, cluster.replicas_per_node, cluster.staleness)
        self._traffic = Traffic()
        self._kv_tokens = cluster.kv_tokens
        self._growth = Lengths()
        self._queue: deque[int] = deque()
        self._requests: list[_Request] = []
        self._away: dict[int, list[_Guests]] = {}
        self._remote = self._branches = 0

    def run(self) -> Figures:
        """Means are over requests from when the replicas have filled up until no more come."""
        self._clock.at(self._chains[0].arrival, self._arrive, 0)
        self._clock.run()
        count = len(self._requests)
        latencies = sorted(
            request.ended - request.chain.arrival
            for request in self._requests[count // 5 : -(-count * 9 // 10)]
            if request.ended is not None
        )
        decoded = sum(chain.tokens - chain.prompt for chain in self._chains)
        return Figures(
            statistics.fmean(latencies),
            latencies[len(latencies) * 99 // 100],
            decoded / (self._clock.now - self._chains[0].arrival),
            self._remote / self._branches,
        )

    @property
    def unfinished(self) -> int:
        return sum(request.ended is None for request in self._requests)

    @property
    def free_tokens(self) -> list[int]:
        """Of each replica's cache."""
        return [replica.free for replica in self._replicas]

    def views(self) -> list[ReplicaView]:
        """What the router knows."""
        return self._ledger.all()

    def _arrive(self, number: int) -> None:
        if number + 1 < len(self._chains):
            self._clock.at(self._chains[number + 1].arrival, self._arrive, number + 1)
        self._queue.append(number)
        if len(self._queue) == 1:
            self._admit(None)

    def _admit(self, _: None) -> None:
        """Requests wait in the order in which they came until the first finds a home whose cache has room for it."""
        while self._queue:
            if not self._begin(self._queue[0]):
                self._clock.at(self._clock.now + ADMISSION, self._admit, None)
                return
            self._queue.popleft()

    def _begin(self, number: int) -> bool:
        chain = self._chains[number]
        earlier = self._requests[chain.earlier] if chain.earlier is not None else None
        cached = [(earlier.home, earlier.chain.tokens)] if earlier is not None and earlier.ended is not None else []
        kv = min(self._kv_tokens, chain.prompt + self._growth.expected(self._kv_tokens))
        replicas = self._ledger.arriving(cached, kv, SHORTLIST)
        if not replicas:
            return False
        home = self._by_id[choose_home(chain.prompt, self._traffic.openings.expected(LONGEST), replicas, self._costs)]
        request = _Request(number, chain, home, kv, len(chain.branches))
        self._requests.append(request)
        missing = chain.prompt - sum(tokens for replica, tokens in cached if replica is home)
        home.free -= chain.prefix
        self._traffic.prompt(self._clock.now, self._ledger.rows(home), self._costs.prefill(missing))
        self._ledger.sent(home, Share(1, chain.prompt, missing, request.kv, 1))
        home.prefill(missing, self._prefilled, (request, missing))
        return True

    def _prefilled(self, which: tuple[_Request, int]) -> None:
        request, missing = which
        self._ledger.ended(request.home, Share(prefill=missing))
        chain = request.chain
        request.home.decode(chain.head, chain.prompt + chain.head / 2, 0, self._fork, request)

    def _fork(self, request: _Request) -> None:
        chain, home = request.chain, request.home
        self._traffic.openings.add(chain.head)
        self._ledger.known_to_end(home, Share(1, chain.prompt, kv=request.kv, requests=1))
        # A follow-up's prompt may hold the closed block of the one before.
        block = Block(
            len(chain.branches),
            chain.prefix,
            self._traffic.branches.expected(LONGEST),
            chain.earlier is None,
            self._traffic.prompts(self._clock.now, self._ledger.at_most, len(self._replicas)),
        )
        replicas = self._ledger.forking(home, lambda view: block.room(view, home.id), 2 * block.width)
        placed = self._policy.place(block, home.id, replicas, self._costs)
        # Wherever they run, the branches' KV comes home.
        expected = block.expected_branch_tokens
        request.kv = chain.prefix + block.width * expected
        self._ledger.sent(home, Share(kv=request.kv))
        guests: dict[str, _Guests] = {}
        for id, length in zip(placed, chain.branches, strict=True):
            if id not in guests:
                kv = 0 if id == home.id else expected
                row = Share(1, chain.prefix + expected / 2, kv=kv, requests=1 / block.width)
                guests[id] = _Guests(request, self._by_id[id], row, [])
            guests[id].lengths.append(length)
        self._branches += len(placed)
        self._away[request.number] = [there for there in guests.values() if there.replica is not home]
        for there in guests.values():
            for _ in there.lengths:
                self._ledger.sent(there.replica, there.row)
            if there.replica is home:
                self._run_branches(there)
            else:
                self._bring_prefix(block, there)

    def _bring_prefix(self, block: Block, guests: _Guests) -> None:
        """Have the prefix pulled or computed, whichever is faster, and then the branches begun."""
        home, replica, prefix = guests.request.home, guests.replica, block.prefix_tokens
        self._remote += len(guests.lengths)
        replica.free -= prefix
        self._ledger.sent(replica, Share(kv=prefix))
        if block.recomputable and self._costs.prefill(prefix) < self._costs.transfer(prefix, replica.node == home.node):
            self._ledger.sent(replica, Share(prefill=prefix))
            replica.prefill(prefix, self._computed, guests)
        else:
            self._clock.at(self._moved(home, replica, prefix), self._run_branches, guests)

    def _moved(self, source: Replica, target: Replica, tokens: int) -> float:
        """When the KV of ``tokens`` tokens has arrived: the links take one transfer after the other."""
        link = self._costs.near if source.node == target.node else self._costs.far
        seconds = tokens * self._costs.kv_bytes / link.bytes_per_second
        source.egress = max(self._clock.now, source.egress) + seconds
        target.ingress = max(self._clock.now, target.ingress) + seconds
        return max(source.egress, target.ingress) + link.fixed

    def _computed(self, guests: _Guests) -> None:
        self._ledger.ended(guests.replica, Share(prefill=guests.request.chain.prefix))
        self._run_branches(guests)

    def _run_branches(self, guests: _Guests) -> None:
        for length in guests.lengths:
            context = guests.request.chain.prefix + length / 2
            guests.replica.decode(length, context, length, self._branch_ends, (guests, length))

    def _branch_ends(self, which: tuple[_Guests, int]) -> None:
        guests, length = which
        request = guests.request
        self._traffic.branches.add(length)
        self._ledger.ended(guests.replica, guests.row)
        # At home the branch's KV stays, as the joined request's.
        if guests.replica is request.home:
            request.home.free -= length
        request.branches_left -= 1
        if not request.branches_left:
            self._join(request)

    def _join(self, request: _Request) -> None:
        chain, home = request.chain, request.home
        ready = self._clock.now
        for guests in self._away.pop(request.number):
            tokens = sum(guests.lengths)
            ready = max(ready, self._moved(guests.replica, home, tokens))
            guests.replica.free += chain.prefix
            self._ledger.ended(guests.replica, Share(kv=chain.prefix))
            home.free -= tokens
        self._ledger.sent(home, Share(1, chain.tokens - chain.tail, kv=chain.tokens - request.kv, requests=1))
        self._clock.at(ready + self._costs.join, self._joined, request)

    def _joined(self, request: _Request) -> None:
        chain = request.chain
        request.home.decode(chain.tail, chain.tokens - chain.tail / 2, chain.tail, self._end, request)

    def _end(self, request: _Request) -> None:
        chain, home = request.chain, request.home
        request.ended = self._clock.now
        self._growth.add(chain.tokens - chain.prompt)
        home.free += chain.prefix + sum(chain.branches)
        self._ledger.ended(home, Share(1, chain.tokens - chain.tail, kv=chain.tokens, requests=1))
