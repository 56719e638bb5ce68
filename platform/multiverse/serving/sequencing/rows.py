"""Places in the engines' batches, shared fairly between requests: a wide request cannot starve narrow ones.

A free place goes to the waiting request that has the fewest, the earlier arrival first. So under load the branches of a
request run in waves, down to one at a time; the text does not depend on it. A place is held while a segment runs, never
while one is waited for: nested blocks cannot lock each other out.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Rows:
    """capacity: how many segments may run at once, asked whenever one wants to; None is without limit."""

    def __init__(self, capacity: Callable[[], int] | None = None) -> None:
        self._capacity = capacity
        self._held: Counter[str] = Counter()
        self._waiting: list[tuple[int, int, str, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @property
    def held(self) -> int:
        return self._held.total()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def row(self, request: str, arrival: int) -> AsyncIterator[None]:
        await self._take(request, arrival)
        try:
            yield
        finally:
            self._held[request] -= 1
            if not self._held[request]:
                del self._held[request]
            self.grant()

    async def _take(self, request: str, arrival: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        entry = (arrival, next(self._numbers), request, turn)
        self._waiting.append(entry)
        self.grant()
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif turn.done() and not turn.cancelled():
                self._held[request] -= 1
                self.grant()
            raise

    def grant(self) -> None:
        """Give free places to those who wait; to be called when the capacity has grown."""
        # A reader that was cancelled takes itself off when it runs next.
        while (there := [it for it in self._waiting if not it[3].done()]) and (
            self._capacity is None or self.held < max(1, self._capacity())
        ):
            entry = min(there, key=lambda it: (self._held[it[2]], it[0], it[1]))
            self._waiting.remove(entry)
            self._held[entry[2]] += 1
            entry[3].set_result(None)
