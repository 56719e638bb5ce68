"""The queue before the engine: how many requests run, how many wait, and whose turn it is.

tenant a: [a3 a2 a1] --+
tenant b: [b1]       --+-- a1, b1, a2, a3 --> running, while there is room and KV
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from multiverse.serving.access.refusals import Overloaded

_MEASURED = 32
"""Requests over whose service times the mean is taken."""
_LONGEST_RETRY = 300.0


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """max_running counts generations (a request for ``n`` is n), max_waiting requests.

    kv_high_water: share of the KV cache in use at which nothing new is admitted.
    max_waiting_rows: the same for segments that wait inside an engine, on average; None: no limit.
    """

    max_running: int = 64
    max_waiting: int = 128
    kv_high_water: float = 0.9
    max_waiting_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Pressure:
    """The engines' figures, all together.

    occupancy: share of all KV caches that is in use. waiting_rows: length of the queue in an engine, the mean of all.
    """

    occupancy: float = 0.0
    waiting_rows: float = 0.0


@dataclass(eq=False, slots=True)
class _Waiter:
    tenant: str
    weight: int
    turn: asyncio.Future[None] = field(repr=False)


class Admission:
    """First come, first served within a tenant; tenants take turns. One server process, one event loop."""

    def __init__(self, limits: AdmissionLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._pressure = Pressure()
        self._running = 0
        self._running_then = 0
        self._admitted_since = 0
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._seconds: deque[float] = deque(maxlen=_MEASURED)

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    def update(self, pressure: Pressure) -> None:
        """Take in the engine's figures, and admit what they leave room for."""
        self._pressure = pressure
        self._running_then, self._admitted_since = self._running, 0
        self._admit_waiting()

    @asynccontextmanager
    async def admit(self, tenant: str, weight: int = 1) -> AsyncIterator[None]:
        """Wait for room for ``weight`` generations and hold it. Raises Overloaded if the queue is full.

        Cancelling leaves the queue.
        """
        weight = min(weight, self._limits.max_running)
        await self._enter(tenant, weight)
        begun = self._clock()
        try:
            yield
        finally:
            self._seconds.append(self._clock() - begun)
            self._leave(weight)

    async def _enter(self, tenant: str, weight: int) -> None:
        if not self._queues and self._held(weight) is None:
            self._take(weight)
            return
        self._make_room(tenant, weight)
        waiter = _Waiter(tenant, weight, asyncio.get_running_loop().create_future())
        self._queues.setdefault(tenant, deque()).append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._queues.get(tenant, ()):
                self._remove(waiter)
                self._admit_waiting()
            elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self._leave(weight)  # admitted in the moment it was cancelled
            raise

    def _held(self, weight: int) -> Literal["queue_full", "kv"] | None:
        """Why a request of ``weight`` cannot start now."""
        if self._running == 0:
            # Figures may be of a time before; while nothing runs, no newer ones would come.
            return None
        if self._running + weight > self._limits.max_running:
            return "queue_full"
        # What was admitted since the figures is not in them: count it like the mean of those that were.
        share = self._pressure.occupancy / max(1, self._running_then)
        if self._pressure.occupancy + share * self._admitted_since >= self._limits.kv_high_water:
            return "kv"
        rows = self._limits.max_waiting_rows
        return "queue_full" if rows is not None and self._pressure.waiting_rows >= rows else None

    def _make_room(self, tenant: str, weight: int) -> None:
        """Raises Overloaded if the queue is full, unless another tenant has more than its share of it."""
        if self.waiting < self._limits.max_waiting:
            return
        longest = max(self._queues.values(), key=len, default=None)
        if longest is None or len(longest) <= len(self._queues.get(tenant, ())) + 1:
            raise self._overloaded(weight)
        last = longest[-1]
        self._remove(last)
        if not last.turn.done():
            last.turn.set_exception(self._overloaded(last.weight))

    def _overloaded(self, weight: int) -> Overloaded:
        reason = self._held(weight) or "queue_full"
        what = "the KV cache is full" if reason == "kv" else f"{self._running} generations are running"
        return Overloaded(
            reason,
            f"the server has no room: {what} and {self.waiting} requests are waiting",
            self._retry_after(weight),
        )

    def _retry_after(self, weight: int) -> float:
        """Seconds until this would have its turn if those before it take as long as the last ones did."""
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else 1.0
        ahead = sum(waiter.weight for queue in self._queues.values() for waiter in queue)
        return min(_LONGEST_RETRY, max(1.0, mean * (ahead + weight) / max(1, self._running)))

    def _admit_waiting(self) -> None:
        while self._queues:
            tenant, queue = next(iter(self._queues.items()))
            if self._held(queue[0].weight) is not None:
                return
            waiter = queue.popleft()
            if queue:
                self._queues.move_to_end(tenant)
            else:
                del self._queues[tenant]
            if not waiter.turn.done():  # done: cancelled just now
                self._take(waiter.weight)
                waiter.turn.set_result(None)

    def _take(self, weight: int) -> None:
        self._running += weight
        self._admitted_since += weight

    def _leave(self, weight: int) -> None:
        self._running -= weight
        self._admit_waiting()

    def _remove(self, waiter: _Waiter) -> None:
        queue = self._queues[waiter.tenant]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.tenant]
