"""What one key uses, held against its limits."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from multiverse.serving.access.keys import KeyLimits
from multiverse.serving.access.refusals import Refused

CONCURRENCY_RETRY = 1.0
"""Seconds. When one of the key's own requests ends is for its holder to know."""


class TokenBucket:
    """Holds at most a minute's tokens, fills up evenly, may be overdrawn: what a request will make nobody knows."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._filled = clock()

    def take(self, tokens: int) -> None:
        self._fill()
        self._level -= tokens

    def wait(self) -> float:
        """Seconds until there is a token in it; 0: now."""
        self._fill()
        missing = 1 - self._level
        # Whoever comes back exactly then is not turned away for a rounding error.
        return 0.0 if missing < 1e-6 else missing * 60 / self._per_minute

    def resize(self, per_minute: int) -> None:
        self._fill()
        self._level = min(self._level, per_minute)
        self._per_minute = per_minute

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._per_minute, self._level + (now - self._filled) * self._per_minute / 60)
        self._filled = now


class Account:
    """The running requests and the tokens of one key. It outlives a reload of the keys.

    limits: this router's share, if it is one of several ``routers``.
    """

    def __init__(
        self, name: str, limits: KeyLimits, clock: Callable[[], float] = time.monotonic, routers: int = 1
    ) -> None:
        self._name = name
        self._where = f" at each of {routers} routers" if routers > 1 else ""
        self._clock = clock
        self._limits = KeyLimits()
        self._bucket: TokenBucket | None = None
        self._running = 0
        self.limits = limits

    @property
    def running(self) -> int:
        """Requests that run or wait."""
        return self._running

    @property
    def limits(self) -> KeyLimits:
        return self._limits

    @limits.setter
    def limits(self, limits: KeyLimits) -> None:
        rate = limits.tokens_per_minute
        if rate is None:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = TokenBucket(rate, self._clock)
        elif rate != self._limits.tokens_per_minute:
            self._bucket.resize(rate)
        self._limits = limits

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request, from its start to its end. Raises Refused if the key is at a limit."""
        concurrency = self._limits.concurrency
        if concurrency is not None and self._running >= concurrency:
            raise Refused(
                "concurrency",
                f"the key {self._name!r} has {self._running} requests running or waiting: "
                f"its limit is {concurrency}{self._where}",
                CONCURRENCY_RETRY,
            )
        if self._bucket is not None and (wait := self._bucket.wait()) > 0:
            raise Refused(
                "tokens_per_minute",
                f"the key {self._name!r} has used its tokens: "
                f"its limit is {self._limits.tokens_per_minute} per minute{self._where}",
                wait,
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def charge(self, tokens: int) -> None:
        """Tokens of a prompt, or tokens that were made."""
        if self._bucket is not None:
            self._bucket.take(tokens)

    def width(self, field: str, asked: int, *, explicit: bool) -> int:
        """The width to use for ``asked``: cut to the limit if it is only the default. Raises Refused."""
        limit = self._limits.max_width
        if limit is None or asked <= limit:
            return asked
        if explicit:
            raise Refused(
                "width", f"{field} is {asked}: the key {self._name!r} may ask for at most {limit}", param=field
            )
        return limit
