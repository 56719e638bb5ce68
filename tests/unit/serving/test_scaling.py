"""How many engine replicas the load asks for."""

from types import SimpleNamespace

import pytest

from deployments.scaling import by_segments


def wanted(segments: dict[str, float], target: float = 16.0, now: int = 2, bounds: tuple[int, int] = (1, 4)) -> int:
    context = SimpleNamespace(
        aggregated_metrics={"segments": segments} if segments else {},
        config=SimpleNamespace(get_target_ongoing_requests=lambda: target),
        target_num_replicas=now,
        capacity_adjusted_min_replicas=bounds[0],
        capacity_adjusted_max_replicas=bounds[1],
    )
    return by_segments(context)[0]


@pytest.mark.parametrize(
    ("segments", "replicas"),
    [({"a": 0.0, "b": 0.0}, 1), ({"a": 15.5, "b": 0.5}, 1), ({"a": 16.0, "b": 0.5}, 2), ({"a": 100.0}, 4)],
)
def test_each_replica_is_to_have_its_target(segments: dict[str, float], replicas: int) -> None:
    assert wanted(segments) == replicas


def test_nothing_changes_before_replicas_have_told_anything() -> None:
    assert wanted({}, now=3) == 3
