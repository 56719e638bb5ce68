"""When the next request may be sent: evenly under the limits per minute, and not while the endpoint wants a pause."""

import asyncio
import time

_LOOK = 0.05
"""Seconds. Pauses and corrections come while one waits."""


class Pace:
    """Amounts spread evenly: what starts in any minute is at most ``per_minute`` and the last one's amount."""

    def __init__(self, per_minute: float) -> None:
        self._seconds = 60 / per_minute
        self._free = 0.0

    def wait(self) -> float:
        """Seconds until the next may start; not above 0: now."""
        return self._free - time.monotonic()

    def take(self, amount: float) -> None:
        self._free = max(self._free, time.monotonic()) + amount * self._seconds

    def correct(self, amount: float) -> None:
        """What was taken was so much more (negative: less)."""
        self._free += amount * self._seconds


class Gate:
    """First come, first served. One client, one event loop."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = None if requests_per_minute is None else Pace(requests_per_minute)
        self._tokens = None if tokens_per_minute is None else Pace(tokens_per_minute)
        self._held_until = 0.0
        self._line = asyncio.Lock()

    async def enter(self, tokens: int) -> None:
        """Wait for the turn of a request that may use so many tokens."""
        async with self._line:
            while (wait := self._wait()) > 0:
                await asyncio.sleep(min(wait, _LOOK))
            if self._requests is not None:
                self._requests.take(1)
            if self._tokens is not None:
                self._tokens.take(tokens)

    def correct(self, tokens: int) -> None:
        """A request used so many tokens more (negative: less) than it entered with."""
        if self._tokens is not None:
            self._tokens.correct(tokens)

    def hold(self, seconds: float) -> None:
        """Let nobody in for so long."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    @property
    def held(self) -> float:
        """Seconds for which still nobody is let in."""
        return max(0.0, self._held_until - time.monotonic())

    def _wait(self) -> float:
        return max(self.held, *(pace.wait() for pace in (self._requests, self._tokens) if pace is not None), 0.0)
