"""Replicas that batch continuously, and the clock they run by: the mechanics of a placement simulation.

Between two changes of a batch all its rows progress alike, one token per step, so what is looked for is not the next
token but the next row that ends: a replica counts the steps of its batch (``progress``), and a row that joins at 100
and wants 32 tokens ends at 132.
"""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

from multiverse.serving.placement.costs import Costs

Call = Callable[[Any], None]


class Clock:
    """Events by time; those of the same time in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Call, Any]] = []
        self._asked = 0

    def at(self, time: float, call: Call, argument: Any) -> None:
        self._asked += 1
        heapq.heappush(self._events, (time, self._asked, call, argument))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now, _, call, argument = heapq.heappop(self._events)
            call(argument)


class Replica:
    """One engine: a batch, what waits for it, and prefills, during which its batch stands still.

    A prefill stalls the batch since vLLM computes up to thousands of prompt tokens in one step, which brings each row
    one token further, like any other step.
    """

    __slots__ = (
        "_asked", "_batch", "_busy", "_clock", "_context", "_costs", "_prefills", "_progress", "_since", "_step",
        "_version", "_waiting", "egress", "free", "id", "index", "ingress", "node",
    )  # fmt: skip

    def __init__(self, clock: Clock, costs: Costs, index: int, node: str, kv_tokens: int) -> None:
        self._clock, self._costs = clock, costs
        self.index, self.id, self.node, self.free = index, f"replica-{index:04d}", node, kv_tokens
        self.egress = self.ingress = 0.0
        """When the link is free again, out and in."""
        self._batch: list[tuple[float, int, int, float, Call, Any]] = []
        self._waiting: deque[tuple[int, float, int, Call, Any]] = deque()
        self._prefills: deque[tuple[int, Call, Any]] = deque()
        self._asked = self._version = 0
        self._context = self._progress = self._since = 0.0
        self._step = 1.0
        self._busy = False

    @property
    def rows(self) -> int:
        """That decode."""
        return len(self._batch)

    def decode(self, tokens: int, context: float, reserve: int, call: Call, argument: Any) -> None:
        """One row of ``tokens`` tokens over ``context`` tokens on average, which takes ``reserve`` tokens of KV cache
        from when it begins until it ends. It waits where batch or cache are full."""
        row = (tokens, context, reserve, call, argument)
        if self._waiting or not self._fits(reserve):
            self._waiting.append(row)
            return
        self._advance()
        self._insert(*row)
        self._predict()

    def prefill(self, tokens: int, call: Call, argument: Any) -> None:
        self._prefills.append((tokens, call, argument))
        if not self._busy:
            self._advance()
            self._busy = True
            self._version += 1
            self._clock.at(self._clock.now + self._costs.prefill(tokens), self._prefilled, None)

    def _fits(self, reserve: int) -> bool:
        return not self._batch or (len(self._batch) < self._costs.max_rows and reserve <= self.free)

    def _insert(self, tokens: int, context: float, reserve: int, call: Call, argument: Any) -> None:
        self._asked += 1
        self._context += context
        self.free -= reserve
        heapq.heappush(self._batch, (self._progress + tokens, self._asked, reserve, context, call, argument))

    def _advance(self) -> None:
        """Bring the count of steps up to now."""
        if self._batch and not self._busy:
            self._progress += (self._clock.now - self._since) / self._step
        self._since = self._clock.now

    def _predict(self) -> None:
        """Ask for the end of the next row. A later change of the batch makes what was asked for before void."""
        self._version += 1
        if self._batch and not self._busy:
            self._step = self._costs.step(len(self._batch), self._context)
            left = max(0.0, self._batch[0][0] - self._progress)
            self._clock.at(self._clock.now + left * self._step, self._row_ends, self._version)

    def _row_ends(self, version: int) -> None:
        if version != self._version:
            return
        self._progress, self._since = self._batch[0][0], self._clock.now
        ended = []
        while self._batch and self._batch[0][0] <= self._progress:
            row = heapq.heappop(self._batch)
            self._context -= row[3]
            self.free += row[2]
            ended.append(row)
        while self._waiting and self._fits(self._waiting[0][2]):
            self._insert(*self._waiting.popleft())
        self._predict()
        for row in ended:
            row[4](row[5])

    def _prefilled(self, _: None) -> None:
        _tokens, call, argument = self._prefills.popleft()
        if self._prefills:
            self._clock.at(self._clock.now + self._costs.prefill(self._prefills[0][0]), self._prefilled, None)
        else:
            self._busy, self._since = False, self._clock.now
        call(argument)
        if not self._busy:
            self._predict()
