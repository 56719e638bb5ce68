"""The figures of what metrics cost."""

import pytest

from multiverse.evaluation.metrics_cost import Cost, report


def test_share_that_is_added_is_that_of_cpu_per_token() -> None:
    on, off = [Cost(2.04, 200), Cost(1.02, 100)], [Cost(1.0, 100), Cost(2.0, 200)]
    found = report(on, off)
    assert found["added"] == pytest.approx(0.02)
    assert (found["added_low"], found["added_high"]) == (pytest.approx(0.02), pytest.approx(0.02))
    assert not found["ok"]
    assert found["on_cpu_ms_per_token"] == pytest.approx(10.2)


def test_interval_is_as_wide_as_the_pairs_differ() -> None:
    off = [Cost(1.0, 100)] * 20
    on = [Cost(1.0 + 0.1 * (-1) ** number, 100) for number in range(20)]
    found = report(on, off)
    assert found["added_low"] < -0.02 < 0.02 < found["added_high"]
    assert found["ok"] == (found["added"] <= 0.01)
