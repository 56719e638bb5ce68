"""Intervals that hold what they say."""

import random
from itertools import combinations
from math import sqrt

import pytest

from multiverse.evaluation.statistics import average_at_k, compare, majority, mcnemar, mean, pass_at, share


def test_intervals_hold_the_share_in_at_least_93_of_100_runs() -> None:
    for interval in (share, mean):
        held = 0
        for seed in range(100):
            draw = random.Random(seed)
            found = interval([draw.random() < 0.3 for _ in range(500)])
            held += found.low <= 0.3 <= found.high
        assert held >= 93, (interval, held)


def test_none_and_all_right_are_no_certainty() -> None:
    assert (share([False] * 30).value, round(share([False] * 30).high, 3)) == (0.0, 0.114)
    assert (share([True] * 30).value, round(share([True] * 30).low, 3)) == (1.0, 0.886)


def test_avg_and_pass_at_k() -> None:
    answers = [[True, False, False, False], [False] * 4, [True] * 4]
    assert average_at_k(answers).value == pytest.approx((0.25 + 0 + 1) / 3)
    assert pass_at(answers, 1) == pytest.approx((0.25 + 0 + 1) / 3)
    assert pass_at(answers, 2) == pytest.approx((0.5 + 0 + 1) / 3)
    assert pass_at(answers, 4) == pytest.approx(2 / 3)


def test_the_majority_is_by_equality_and_the_first_of_several() -> None:
    def equal(one: str, other: str) -> bool:
        return float(one) == float(other)

    assert majority(["3", "2", "2.0", ""], equal) == "2"
    assert majority(["3", "2"], equal) == "3"
    assert majority(["", ""], equal) == ""


def test_a_paired_comparison() -> None:
    first, second = [True] * 60 + [False] * 40, [True] * 50 + [False] * 50
    found = compare(first, second)
    assert (found.points.value, found.only_first, found.only_second) == (10.0, 10, 0)
    assert found.points.low > 4 and found.points.high < 17
    assert found.p_value == pytest.approx(2 / 2**10)
    with pytest.raises(ValueError):
        compare(first, second[1:])


def test_mcnemar() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 1024)


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_that_of_newcombe_1998_table_1(right: int, of: int, low: float, high: float) -> None:
    found = share([True] * right + [False] * (of - right))
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_the_bootstrap_is_near_the_normal_interval_of_many_items() -> None:
    draw = random.Random(1)
    values = [draw.random() for _ in range(2000)]
    middle = sum(values) / len(values)
    error = sqrt(sum((value - middle) ** 2 for value in values)) / len(values)
    found = mean(values)
    assert found.value == pytest.approx(middle)
    assert found.low == pytest.approx(
        middle - 1.96 * error, abs=0.2 * error
    )  # 2,000 draws place a quantile to about 0.06 of it
    assert found.high == pytest.approx(
        middle + 1.96 * error, abs=0.2 * error
    )  # 2,000 draws place a quantile to about 0.06 of it
    assert mean(values, seed=1) != found == mean(values)


def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_right_answer() -> None:
    answers = [True] * 3 + [False] * 7
    for k in range(1, 11):
        draws = list(combinations(answers, k))
        assert pass_at([answers], k) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert pass_at([answers], 2) == pytest.approx(24 / 45)
    with pytest.raises(ValueError, match="pass@3 needs 3 answers of each item, and one has 2"):
        pass_at([[True] * 3, [True] * 2], 3)


def test_mcnemar_is_that_of_fagerland_2013() -> None:
    # Airway hyper-responsiveness before and after stem cell transplantation: 1 and 7 discordant pairs.
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(7, 1) == mcnemar(1, 7)


def test_the_paired_bootstrap_is_near_the_normal_interval_of_paired_shares() -> None:
    only_first, only_second, both, items = 120, 70, 500, 1000
    first = [True] * (only_first + both) + [False] * (items - only_first - both)
    second = [False] * only_first + [True] * (both + only_second) + [False] * (items - only_first - both - only_second)
    found = compare(first, second)
    error = 100 * sqrt(only_first + only_second - (only_first - only_second) ** 2 / items) / items
    assert (found.points.value, found.only_first, found.only_second) == (pytest.approx(5.0), 120, 70)
    assert found.points.low == pytest.approx(
        5 - 1.96 * error, abs=0.2 * error
    )  # 2,000 draws place a quantile to about 0.06 of it
    assert found.points.high == pytest.approx(
        5 + 1.96 * error, abs=0.2 * error
    )  # 2,000 draws place a quantile to about 0.06 of it
