"""Speed-up against the same tokens one after the other."""

import pytest

from multiverse.engine.step_times import StepCurve
from multiverse.serving.api import speedup
from multiverse.serving.api.speedup import GainMeter, Load

CURVE = StepCurve.of([(1, 0.010), (4, 0.012), (8, 0.020)])


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(speedup, "time", clock)
    return clock


def four_branches(load: Load, clock: Clock, seconds: float) -> GainMeter:
    """A first token, and then four branches of 100 tokens."""
    meter = GainMeter(load)
    meter.tokens(1)
    meter.branches(3)
    clock.now += seconds
    for _ in range(4):
        meter.tokens(100)
        meter.branches(-1)
    meter.branches(1)
    return meter


def test_alone_the_sequential_time_is_a_step_of_batch_one_per_token(clock: Clock) -> None:
    load = Load()
    load.update(CURVE, running=4, replicas=1)
    meter = four_branches(load, clock, 2.0)
    gain = meter.gain(critical_path=101)
    assert gain is not None
    # The rows that run lately are this request's own: without them the batch is one row.
    assert gain.batch < 3
    assert gain.taken == 2.0
    assert gain.speedup == pytest.approx(gain.sequential / 2.0)


def test_limit_is_what_the_step_times_allow(clock: Clock) -> None:
    load = Load()
    load.update(CURVE, running=0, replicas=1)
    gain = four_branches(load, clock, 1.3).gain(critical_path=101)
    assert gain is not None
    assert gain.batch == 1.0
    assert gain.sequential == pytest.approx(4.0)
    assert gain.expected == pytest.approx(100 * 0.012)
    assert gain.speedup == pytest.approx(4.0 / 1.3)


def test_among_others_the_sequential_request_would_be_one_row_more(clock: Clock) -> None:
    load = Load()
    load.update(CURVE, running=0, replicas=2)
    others = [GainMeter(load) for _ in range(6)]
    gain = four_branches(load, clock, 2.0).gain(critical_path=101)
    assert gain is not None
    assert gain.batch == 4.0  # three others on each replica
    assert gain.sequential == pytest.approx(400 * 0.012)
    for other in others:
        other.ended()


def test_rows_are_given_back_at_the_end_even_in_the_middle_of_a_block() -> None:
    load = Load()
    meter = GainMeter(load)
    meter.branches(3)
    assert load.rows == 4
    meter.ended()
    assert load.rows == 0


def test_nothing_is_told_where_no_step_of_that_batch_was_seen(clock: Clock) -> None:
    load = Load()
    load.update(StepCurve.of([(8, 0.02)]), running=0, replicas=1)
    assert four_branches(load, clock, 1.0).gain(101) is None


def test_nothing_is_told_of_a_single_token(clock: Clock) -> None:
    load = Load()
    load.update(CURVE, running=0, replicas=1)
    meter = GainMeter(load)
    meter.tokens(1)
    assert meter.gain(1) is None


def test_what_the_engine_wrote_counts_neither_in_sequence_nor_in_the_limit(clock: Clock) -> None:
    load = Load()
    load.update(CURVE, running=0, replicas=1)
    meter = GainMeter(load)
    meter.tokens(80, written=True)  # a goal: it comes at once
    clock.now += 1.0
    for _ in range(2):
        meter.tokens(10, written=True)
        meter.tokens(90)
    gain = meter.gain(critical_path=180)
    assert gain is not None
    assert gain.sequential == pytest.approx(180 * 0.010)
    # Two rows on average, so 90 steps of a batch between those of 1 and 4 rows.
    assert gain.expected == pytest.approx(90 * (0.010 + 0.002 / 3))
