"""What a router has seen lately, for what placement expects to come: lengths, and where prompts go."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable

from multiverse.serving.placement.view import Prompts

RECENT = 256
"""Of each kind of event, this many are remembered."""
GUESS = 128
"""Tokens, while nothing has ended yet."""


class Lengths:
    """The mean of the last ones."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._sum = 0

    def add(self, tokens: int) -> None:
        if len(self._recent) == RECENT:
            self._sum -= self._recent[0]
        self._recent.append(tokens)
        self._sum += tokens

    def expected(self, limit: int) -> int:
        return max(1, min(limit, round(self._sum / len(self._recent)) if self._recent else GUESS))


class Traffic:
    """Lengths of ``branches``, and of ``openings``: the segments that requests begin with; and prompts that came."""

    def __init__(self) -> None:
        self.branches, self.openings = Lengths(), Lengths()
        self._prompts: deque[tuple[float, int, float]] = deque(maxlen=RECENT)

    def prompt(self, at: float, rows: int, seconds: float) -> None:
        """At ``at`` (seconds), a replica with ``rows`` rows got a prompt whose prefill takes ``seconds``."""
        self._prompts.append((at, rows, seconds))

    def prompts(self, now: float, at_most: Callable[[int], int], replicas: int) -> Prompts:
        """at_most: how many of the replicas have so many rows at most.

        A replica gets a prompt if no other one is less loaded: where prompts go to replicas of at least its rows, and
        then it is one of those that have no more than it.
        """
        if len(self._prompts) < 2 or now <= self._prompts[0][0]:
            return Prompts()
        loads = sorted(rows for _, rows, _ in self._prompts)
        per_second = len(loads) / (now - self._prompts[0][0])
        shares = ((len(loads) - bisect_left(loads, rows)) / len(loads) for rows in range(loads[-1] + 1))
        by_rows = tuple(per_second * share / max(1, at_most(rows)) for rows, share in enumerate(shares))
        prefill = sum(seconds for _, _, seconds in self._prompts) / len(self._prompts)
        return Prompts(by_rows, per_second / replicas, prefill)
