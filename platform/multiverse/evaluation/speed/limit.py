"""What an answer's shape can gain at most on an engine: by the engine's own times of a step, of one row and of many.

    plain       every token takes a step of b rows                  tokens * t(b)
    structured  a step makes one token of each branch that runs     sum over steps of t(b * rows of the step)

At k equal branches and nothing else that is k t(b) / t(k b).
"""

from bisect import bisect_right
from collections.abc import Mapping


def step_at(curve: Mapping[int, float], rows: int) -> float:
    """Seconds of a step of ``rows`` rows, between measured ones in proportion. Raises ValueError outside of them."""
    if rows in curve:
        return curve[rows]
    known = sorted(curve)
    if not known or not known[0] < rows < known[-1]:
        raise ValueError(f"a step of {rows} rows was not measured: {known} were")
    upper = bisect_right(known, rows)
    low, high = known[upper - 1], known[upper]
    return curve[low] + (curve[high] - curve[low]) * (rows - low) / (high - low)


def limit(steps: Mapping[int, int], batch: int, curve: Mapping[int, float]) -> float:
    """The most that answers of this shape can be faster than as many tokens in sequence.

    steps: by the rows of one request, how many of its steps have them. batch: requests at once. curve: by the rows of
    a batch, seconds of a step.
    """
    tokens = sum(rows * count for rows, count in steps.items())
    structured = sum(count * step_at(curve, batch * rows) for rows, count in steps.items())
    return tokens * step_at(curve, batch) / structured
