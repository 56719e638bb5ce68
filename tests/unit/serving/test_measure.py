"""What is measured of requests."""

from prometheus_client import CollectorRegistry, generate_latest

from multiverse.serving.api.measure import ServerMeter
from multiverse.serving.events import BranchRetried, FellBack, TokensAdded
from multiverse.telemetry.export import build
from tests.unit.serving.http_fakes import Words, block_of_two


def test_request_with_a_block() -> None:
    registry = CollectorRegistry()
    server = ServerMeter(build(registry))
    words = Words()
    meter = server.started("auto")
    assert registry.get_sample_value("multiverse_requests_running") == 1
    events = block_of_two(words)
    for event in events:
        meter.event(event)
    meter.ended()
    assert registry.get_sample_value("multiverse_requests_running") == 0
    assert registry.get_sample_value("multiverse_requests_total", {"mode": "auto", "outcome": "stop"}) == 1
    assert registry.get_sample_value("multiverse_critical_path_tokens_total", {"mode": "auto"}) == 40
    assert registry.get_sample_value("multiverse_parallelism_sum", {"mode": "auto"}) == 1.5
    assert registry.get_sample_value("multiverse_forks_total") == 1
    assert registry.get_sample_value("multiverse_joins_total") == 1
    assert registry.get_sample_value("multiverse_fork_width_sum") == 2
    assert registry.get_sample_value("multiverse_block_depth_sum") == 1
    assert registry.get_sample_value("multiverse_branch_seconds_count") == 2
    assert registry.get_sample_value("multiverse_branch_seconds_sum") == 0.03
    assert registry.get_sample_value("multiverse_join_seconds_count") == 1


def test_request_that_falls_back_is_counted_once_by_its_first_reason() -> None:
    registry = CollectorRegistry()
    server = ServerMeter(build(registry))
    for reasons in (["no_goal", "stray_tag", "no_goal"], ["stray_tag"], []):
        meter = server.started("auto")
        for branch, reason in enumerate(reasons, 1):
            meter.event(FellBack(((1, branch),), reason))
        meter.ended()
    fallbacks = [
        registry.get_sample_value("multiverse_fallbacks_total", {"reason": reason})
        for reason in ("no_goal", "stray_tag")
    ]
    assert fallbacks == [1, 1]
    assert registry.get_sample_value("multiverse_requests_total", {"mode": "auto", "outcome": "cancelled"}) == 3


def test_request_that_is_given_up_is_cancelled() -> None:
    registry = CollectorRegistry()
    ServerMeter(build(registry)).started("off").ended()
    assert registry.get_sample_value("multiverse_requests_total", {"mode": "off", "outcome": "cancelled"}) == 1


def test_tokens_of_a_cancelled_request_are_counted_for_its_key() -> None:
    registry = CollectorRegistry()
    server = ServerMeter(build(registry))
    server.begun("alice", 5)
    meter = server.started("off", "alice")
    meter.event(TokensAdded((), (1, 2)))
    meter.event(TokensAdded((), (3,), written=True))
    meter.ended()
    assert registry.get_sample_value("multiverse_key_requests_total", {"key": "alice"}) == 1
    assert registry.get_sample_value("multiverse_key_tokens_total", {"key": "alice", "kind": "prompt"}) == 5
    assert registry.get_sample_value("multiverse_key_tokens_total", {"key": "alice", "kind": "completion"}) == 3


def test_nobody_is_counted_without_keys() -> None:
    registry = CollectorRegistry()
    server = ServerMeter(build(registry))
    server.begun(None, 5)
    server.started("off").ended()
    assert b"multiverse_key_requests_total{" not in generate_latest(registry)


def test_figures_of_a_fleet() -> None:
    registry = CollectorRegistry()
    server = ServerMeter(build(registry))
    stats = {"replicas": 3, "queued_segments": 5, "replicas_lost": 1, "branches_resumed": 2, "placement": "spread"}
    server.engine(stats | {"kv_moved_bytes": {"near": 100}, "placements": {"home": 1, "remote": 2}})
    server.engine(stats | {"kv_moved_bytes": {"near": 150, "far": 7}, "placements": {"home": 2, "remote": 2}})
    server.started("auto").event(BranchRetried(((1, 2),)))
    assert registry.get_sample_value("multiverse_replicas") == 3
    assert registry.get_sample_value("multiverse_segments_waiting") == 5
    assert registry.get_sample_value("multiverse_replicas_lost_total") == 1
    assert registry.get_sample_value("multiverse_branches_retried_total", {"reason": "lost"}) == 2
    assert registry.get_sample_value("multiverse_branches_retried_total", {"reason": "late"}) == 1
    assert registry.get_sample_value("multiverse_kv_moved_bytes_total", {"distance": "near"}) == 150
    assert registry.get_sample_value("multiverse_kv_moved_bytes_total", {"distance": "far"}) == 7
    for outcome in ("home", "remote"):
        labels = {"policy": "spread", "outcome": outcome}
        assert registry.get_sample_value("multiverse_placements_total", labels) == 2


def test_counters_of_the_engine_are_counted_once() -> None:
    registry = CollectorRegistry()
    server = ServerMeter(build(registry))
    server.engine({"leases": 4, "rebuilds": {"evicted": 2}, "lease_spills": 1})
    server.engine({"leases": 3, "rebuilds": {"evicted": 5}, "lease_spills": 1})
    assert registry.get_sample_value("multiverse_leases") == 3
    assert registry.get_sample_value("multiverse_rebuilds_total", {"reason": "evicted"}) == 5
    assert registry.get_sample_value("multiverse_lease_spills_total") == 1
