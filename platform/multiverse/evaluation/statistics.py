"""Shares, intervals and comparisons over items.

An item is answered once or k times (with k seeds). Intervals are at 95 %: Wilson's for the share of right answers of
one sample, which stays sensible at 0 and 1, and the bootstrap over items for everything else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, sqrt

import numpy as np

RESAMPLES = 2000
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def share(correct: Sequence[bool]) -> Estimate:
    """The share of right answers, one per item, with Wilson's interval."""
    n = len(correct)
    if not n:
        return Estimate(0.0, 0.0, 1.0)
    p = sum(correct) / n
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half))


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean over items, with the bootstrap's interval; 0 of no items."""
    if not values:
        return Estimate(0.0, 0.0, 0.0)
    found = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(found), size=(RESAMPLES, len(found)))
    low, high = np.quantile(found[draws].mean(axis=1), (0.025, 0.975))
    return Estimate(float(found.mean()), float(low), float(high))


def average_at_k(correct: Sequence[Sequence[bool]], seed: int = 0) -> Estimate:
    """avg@k: the mean over items of the share of right answers among an item's k."""
    return mean([sum(item) / len(item) for item in correct], seed)


def pass_at(correct: Sequence[Sequence[bool]], k: int) -> float:
    """pass@k, without bias: that one of k answers drawn from an item's n is right (Chen et al. 2021); 0 of no items.

    Raises ValueError for an item with fewer than k answers.
    """
    if fewest := [len(item) for item in correct if len(item) < k]:
        raise ValueError(f"pass@{k} needs {k} answers of each item, and one has {min(fewest)}")
    if not correct:
        return 0.0
    return float(np.mean([1 - comb(len(item) - sum(item), k) / comb(len(item), k) for item in correct]))


def majority(answers: Sequence[str], equal: Callable[[str, str], bool]) -> str:
    """The answer that most are equal to; of several the one that came first. Empty ones do not count."""
    groups: list[list[str]] = []
    for answer in filter(None, answers):
        group = next((group for group in groups if equal(answer, group[0])), None)
        if group is None:
            groups.append([answer])
        else:
            group.append(answer)
    return max(groups, key=len)[0] if groups else ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same items. points: first minus second, in points of a hundred, with the bootstrap's interval.

    only_first, only_second: items that only one of them has right. p_value: McNemar's exact test, two-sided.
    """

    points: Estimate
    only_first: int
    only_second: int
    p_value: float


def compare(first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> Comparison:
    """Paired: item i of both is the same. Raises ValueError if they are not as many."""
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    points = mean([100.0 * (a - b) for a, b in pairs], seed)
    return Comparison(points, only_first, only_second, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value: how likely so uneven a split of the unequal pairs is if both models are alike."""
    n, least = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(comb(n, i) for i in range(least + 1)) / 2**n) if n else 1.0
