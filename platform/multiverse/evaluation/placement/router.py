"""What the router of a placement simulation knows of the replicas, which is a little less than what is so."""

import bisect
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from multiverse.evaluation.placement.replicas import Clock, Replica
from multiverse.serving.placement.view import ReplicaView


@dataclass(frozen=True, slots=True)
class Share:
    """Of a replica: rows, context tokens over all of them, prompt tokens, tokens of KV cache, requests; see
    `ReplicaView`."""

    rows: int = 0
    context: float = 0.0
    prefill: int = 0
    kv: int = 0
    requests: float = 0.0


class Ledger:
    """The replicas as the router sees them: what it sent off is there at once, what ended is seen with the next report.

    Reports come from all replicas, each ``staleness`` seconds.
    """

    def __init__(self, clock: Clock, replicas: Sequence[Replica], per_node: int, staleness: float) -> None:
        self._clock, self._replicas, self._per_node, self._staleness = clock, replicas, per_node, staleness
        self._rows, self._context, self._prefill = ([0] * len(replicas), [0.0] * len(replicas), [0] * len(replicas))
        self._requests = [0.0] * len(replicas)
        self._free = [replica.free for replica in replicas]
        self._ended: deque[tuple[float, int, Share]] = deque()
        self._views = [
            ReplicaView(replica.id, replica.node, 0, 0, replica.free, kv_tokens=replica.free) for replica in replicas
        ]
        self._by_rows, self._by_requests = _Order(len(replicas)), _Order(len(replicas))
        self._changed: set[int] = set()

    def sent(self, replica: Replica, share: Share) -> None:
        self._add(replica.index, share, 1)

    def known_to_end(self, replica: Replica, share: Share) -> None:
        """For what the router waited for: it need not be told."""
        self._add(replica.index, share, -1)

    def ended(self, replica: Replica, share: Share) -> None:
        self._ended.append((self._clock.now, replica.index, share))

    def rows(self, replica: Replica) -> int:
        return self._rows[replica.index]

    def at_most(self, rows: int) -> int:
        """How many replicas have no more rows, as of the last view."""
        return self._by_rows.below(rows + 1)

    def all(self) -> list[ReplicaView]:
        self._update()
        return self._views.copy()

    def arriving(self, cached: Sequence[tuple[Replica, int]], tokens: int, count: int) -> list[ReplicaView]:
        """Replicas that have room for a request of ``tokens`` tokens: those that have some of its prompt, and those
        with the fewest rows and with the fewest requests, ``count`` each."""
        self._update()
        views = {
            replica.index: replace(self._views[replica.index], cached_prefix_tokens=had)
            for replica, had in cached
            if self._free[replica.index] >= tokens
        }
        for order in (self._by_rows, self._by_requests):
            for index in itertools.islice((index for index in order if self._free[index] >= tokens), count):
                views.setdefault(index, self._views[index])
        return list(views.values())

    def forking(self, home: Replica, fits: Callable[[ReplicaView], int], count: int) -> list[ReplicaView]:
        """Replicas for branches: home, its node's, and the ``count`` others with the fewest rows that have room."""
        self._update()
        begin = home.index // self._per_node * self._per_node
        node = range(begin, min(begin + self._per_node, len(self._replicas)))
        others = (self._views[index] for index in self._by_rows if index not in node)
        return [*(self._views[index] for index in node), *itertools.islice(filter(fits, others), count)]

    def _update(self) -> None:
        reported = self._clock.now
        if self._staleness:
            reported = self._clock.now // self._staleness * self._staleness
        while self._ended and self._ended[0][0] <= reported:
            _, index, share = self._ended.popleft()
            self._add(index, share, -1)
        for index in self._changed:
            replica, rows, prefill = self._replicas[index], self._rows[index], self._prefill[index]
            context, requests = round(self._context[index]), max(0.0, round(self._requests[index], 6))
            free, kv_tokens = self._free[index], self._views[index].kv_tokens
            self._views[index] = ReplicaView(
                replica.id, replica.node, rows, 0, free, 0, context, prefill, requests, kv_tokens
            )
            self._by_rows.move(index, rows, prefill)
            self._by_requests.move(index, requests, prefill)
        self._changed.clear()

    def _add(self, index: int, share: Share, sign: int) -> None:
        self._rows[index] += sign * share.rows
        self._context[index] += sign * share.context
        self._prefill[index] += sign * share.prefill
        self._free[index] -= sign * share.kv
        self._requests[index] += sign * share.requests
        self._changed.add(index)


class _Order:
    """Indices of replicas, those with the smallest load first, and of equal ones that with the fewest prompt tokens."""

    def __init__(self, count: int) -> None:
        self._keys = [(0.0, 0, index) for index in range(count)]
        self._sorted = self._keys.copy()

    def __iter__(self) -> Iterator[int]:
        return (index for _, _, index in self._sorted)

    def move(self, index: int, load: float, prefill: int) -> None:
        key, before = (load, prefill, index), self._keys[index]
        if key != before:
            del self._sorted[bisect.bisect_left(self._sorted, before)]
            bisect.insort(self._sorted, key)
            self._keys[index] = key

    def below(self, load: float) -> int:
        return bisect.bisect_left(self._sorted, (load, 0, 0))
