"""How much of the machine other processes took while something was measured.

On a CPU the threads of a step wait for each other many times in every layer, so that one other busy process makes steps
several times as long, now and then: a ratio of two such times says little.
"""

import time
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class Busy:
    """Seconds that all cores, and this process with all below it, have worked so far; and when that was."""

    everybody: float
    ours: float
    at: float

    @classmethod
    def now(cls) -> "Busy":
        total = psutil.cpu_times()
        idle = total.idle + getattr(total, "iowait", 0.0)
        # Guests' time is in `user` already.
        guests = getattr(total, "guest", 0.0) + getattr(total, "guest_nice", 0.0)
        return cls(sum(total) - idle - guests, _ours(), time.monotonic())


def others(begun: Busy, ended: Busy, cores: int | None = None) -> float:
    """The share of the cores' time that went to other processes, 0 to 1. What ended meanwhile counts as others'."""
    available = (ended.at - begun.at) * (cores or psutil.cpu_count() or 1)
    taken = (ended.everybody - begun.everybody) - (ended.ours - begun.ours)
    return min(1.0, max(0.0, taken / available)) if available > 0 else 0.0


def _ours() -> float:
    here = psutil.Process()
    seconds = 0.0
    for process in (here, *here.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
    return seconds
