"""How long an engine's decode steps take, by the rows of their batch, from the steps themselves.

    rows       1 | 2 3 | 4 ... 7 | 8 ... 15 | ...      one mean per power of two: of rows, and of seconds

Placement's costs are measured at the start and say what a batch would take; these say what it takes now, at the context
that requests have. Steps that end a prefill do not count. (A part of a longer prefill is not seen.)
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

WEIGHT = 0.05
"""Of the newest step in a mean."""

Point = tuple[float, float]
"""Mean rows, and mean seconds of a step."""


def bucket(rows: float) -> int:
    return int(rows).bit_length()


class StepTimes:
    """Of one engine."""

    def __init__(self) -> None:
        self._means: dict[int, Point] = {}

    def take(self, rows: int, seconds: float) -> None:
        """A step of ``rows`` rows that decode, and nothing else, took ``seconds``."""
        mean, new = self._means.get(bucket(rows)), (float(rows), seconds)
        if mean is not None:
            new = (mean[0] + WEIGHT * (new[0] - mean[0]), mean[1] + WEIGHT * (new[1] - mean[1]))
        self._means[bucket(rows)] = new

    def points(self) -> list[Point]:
        """The means, rows ascending."""
        return sorted(self._means.values())


@dataclass(frozen=True, slots=True)
class StepCurve:
    """Seconds of a step for any number of rows. points: rows ascending, seconds not falling."""

    points: tuple[Point, ...] = ()

    @classmethod
    def of(cls, points: Iterable[Point]) -> "StepCurve":
        """From the means of any number of engines, which are taken to be alike."""
        grouped: dict[int, list[Point]] = {}
        for rows, seconds in points:
            grouped.setdefault(bucket(rows), []).append((rows, seconds))
        curve: list[Point] = []
        for _, group in sorted(grouped.items()):
            rows, seconds = (sum(values) / len(group) for values in zip(*group, strict=True))
            # Noise may make a larger batch look faster.
            curve.append((rows, max(seconds, curve[-1][1] if curve else 0.0)))
        return cls(tuple(curve))

    def at(self, rows: float) -> float | None:
        """None below the smallest batch that was seen: what a smaller one takes would be a guess."""
        points = self.points
        if not points or bucket(rows) < bucket(points[0][0]):
            return None
        if rows <= points[0][0] or len(points) == 1:
            return points[0][1]
        upper = min(bisect_right(points, (rows, 0.0)), len(points) - 1)
        (low, fast), (high, slow) = points[upper - 1], points[upper]
        return fast + (slow - fast) * (rows - low) / (high - low)
