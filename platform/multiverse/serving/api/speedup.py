"""What going parallel gains: a request's tokens one after the other, by the engine's own step times, and as they came.

    rows of the engine's batch now     o o o o o | w w w      others, and the branches of this request
    the request in sequence            o o o o o | w          a token per step of that batch: `sequential`

All time behind the first tokens counts, forks and joins included; what is before them (the queue, the prompt's prefill,
the plan of force mode) does not. Tokens that the engine wrote take no step in either, and are not counted.
"""

import time
from dataclasses import dataclass

from multiverse.engine.step_times import StepCurve


@dataclass(frozen=True, slots=True)
class Gain:
    """Of one request, in seconds: in sequence, as it was, and as its critical path would be without forks and joins.

    batch: mean rows of the batch that it would have been one row of.
    """

    sequential: float
    taken: float
    expected: float
    batch: float

    @property
    def speedup(self) -> float:
        return self.sequential / self.taken


class Load:
    """The batches of the engines as one server sees them."""

    def __init__(self) -> None:
        self.curve = StepCurve()
        self.rows = 0
        """Branches of this server's requests that run."""
        self._running = 0
        self._replicas = 1

    def update(self, curve: StepCurve, running: int, replicas: int) -> None:
        """running: segments on all ``replicas``, as they were lately."""
        self.curve, self._running, self._replicas = curve, running, max(1, replicas)

    def others(self, own: int) -> float:
        """Rows of a replica's batch that are not this request's, which has ``own`` rows; the mean of the replicas."""
        return max(0, max(self.rows, self._running) - own) / self._replicas


class GainMeter:
    """Measures one request. Tell it of tokens, and of how many branches run."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.rows = 1
        load.rows += 1
        self._first: float | None = None
        self._last = 0.0
        self._first_tokens = 0
        self._all_tokens = 0
        self._tokens = 0
        self._sequential = 0.0
        self._others = 0.0
        self._known = True

    def branches(self, more: int) -> None:
        """So many rows more, or fewer, run."""
        self.rows += more
        self._load.rows += more

    def tokens(self, count: int, written: bool = False) -> None:
        """Some came. written: by the engine."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._first_tokens = now, count
            return
        self._last = now
        self._all_tokens += count
        if written:
            return
        others = self._load.others(self.rows)
        step = self._load.curve.at(others + 1)
        if step is None:
            self._known = False
            return
        self._tokens += count
        self._sequential += count * step
        self._others += count * others

    def ended(self) -> None:
        self._load.rows -= self.rows

    def gain(self, critical_path: int) -> Gain | None:
        """Of a request that ended well. None where too little is known, or nothing came behind the first tokens.

        critical_path: of the whole answer; the first tokens stand on it.
        """
        positions = critical_path - self._first_tokens
        if self._first is None or not self._known or not self._tokens or self._last <= self._first or positions < 1:
            return None
        others, rows = self._others / self._tokens, self._all_tokens / positions
        together = self._load.curve.at(others + rows)
        if together is None:
            return None
        expected = self._tokens / rows * together
        return Gain(self._sequential, self._last - self._first, expected, others + 1)
