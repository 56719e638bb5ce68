"""Step times of an engine, and the curve that is made of them."""

import pytest

from multiverse.engine.step_times import StepCurve, StepTimes


def test_steps_are_kept_by_powers_of_two_and_the_last_ones_count_most() -> None:
    times = StepTimes()
    for _ in range(200):
        times.take(1, 0.010)
    for rows in (4, 5, 6, 7):
        times.take(rows, 0.020)
    assert times.points()[0] == (1.0, pytest.approx(0.010))
    assert times.points()[1] == (pytest.approx(4.29, abs=0.02), pytest.approx(0.020))
    for _ in range(200):
        times.take(1, 0.030)
    assert times.points()[0][1] == pytest.approx(0.030, rel=0.01)


def test_curve_is_straight_between_points_and_goes_on_behind_the_last() -> None:
    curve = StepCurve.of([(1, 0.010), (4, 0.013), (8, 0.021)])
    assert [curve.at(rows) for rows in (1, 2.5, 4, 6, 10)] == pytest.approx([0.010, 0.0115, 0.013, 0.017, 0.025])


def test_smaller_batches_than_were_seen_are_not_guessed() -> None:
    assert StepCurve.of([(4, 0.013), (8, 0.021)]).at(1) is None
    assert StepCurve().at(1) is None


def test_points_of_several_engines_are_averaged_and_the_curve_never_falls() -> None:
    curve = StepCurve.of([(1, 0.010), (1, 0.014), (2, 0.008)])
    assert curve.points == ((1.0, 0.012), (2.0, 0.012))
