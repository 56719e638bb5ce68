"""Intervals that hold what they say."""

import random

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
