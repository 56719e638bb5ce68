"""The metric table and its export through prometheus_client."""

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from multiverse.telemetry.engines import LEASES, REBUILDS
from multiverse.telemetry.export import build
from multiverse.telemetry.metric import Metric
from multiverse.telemetry.metrics import METRICS, SUBJECTS, of_kind
from multiverse.telemetry.requests import FORK_WIDTH, REQUESTS, TOKENS

every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def exported(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


@every_metric
def test_name_has_the_prefix_and_only_characters_that_prometheus_and_ray_take(metric: Metric) -> None:
    assert re.fullmatch(r"multiverse_[a-z]+(_[a-z]+)*", metric.name)


@every_metric
def test_total_ends_the_name_of_counters_and_of_nothing_else(metric: Metric) -> None:
    assert metric.name.endswith("_total") == (metric.kind == "counter")


@every_metric
def test_help_is_a_sentence(metric: Metric) -> None:
    assert re.fullmatch(r"[A-Z].{10,}\.", metric.help)


@every_metric
def test_buckets_belong_to_histograms_and_ascend_from_above_zero(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted({bound for bound in metric.buckets if bound > 0})


def test_labels_are_those_whose_values_the_platform_or_its_operator_names() -> None:
    labels = {label for metric in METRICS for label in metric.labels}
    served = {"mode", "outcome", "batch", "reason", "key", "kind", "limit", "distance", "policy", "place"}
    assert labels == served | {"part", "stage", "side", "suite"}


def test_names_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert sorted(set(names)) == sorted(names)


def test_every_subject_has_its_metrics_in_the_table() -> None:
    for subject in SUBJECTS:
        assert {value for value in vars(subject).values() if isinstance(value, Metric)} & set(METRICS)
    assert len(METRICS) > 60


def test_prometheus_exports_every_metric_with_its_type_and_help() -> None:
    registry = CollectorRegistry()
    build(registry)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found = {(family.name, family.type, family.documentation) for family in families}
    assert {(metric.name.removesuffix("_total"), metric.kind, metric.help) for metric in METRICS} <= found


def test_counter_adds_up_per_label() -> None:
    registry = CollectorRegistry()
    recorder = build(registry)
    recorder.inc(TOKENS, 40, mode="auto")
    recorder.inc(TOKENS, 2, mode="auto")
    recorder.inc(TOKENS, 0, mode="off")
    lines = exported(registry)
    assert 'multiverse_tokens_total{mode="auto"} 42.0' in lines
    assert 'multiverse_tokens_total{mode="off"} 0.0' in lines


def test_gauge_holds_the_last_value() -> None:
    registry = CollectorRegistry()
    recorder = build(registry)
    recorder.set(LEASES, 3)
    recorder.set(LEASES, 1)
    assert "multiverse_leases 1.0" in exported(registry)


def test_histogram_counts_an_observation_in_its_bucket() -> None:
    registry = CollectorRegistry()
    build(registry).observe(FORK_WIDTH, 3)
    lines = exported(registry)
    assert 'multiverse_fork_width_bucket{le="2.0"} 0.0' in lines
    assert 'multiverse_fork_width_bucket{le="3.0"} 1.0' in lines
    assert "multiverse_fork_width_sum 3.0" in lines


def test_missing_label_is_refused() -> None:
    with pytest.raises(ValueError):
        build(CollectorRegistry()).inc(REQUESTS, mode="auto")


def test_label_the_metric_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError):
        build(CollectorRegistry()).inc(REBUILDS, cause="evicted")


def test_metric_of_another_kind_is_refused() -> None:
    with pytest.raises(KeyError):
        build(CollectorRegistry()).inc(LEASES)


def test_kinds_divide_the_table() -> None:
    kinds = of_kind("counter") + of_kind("gauge") + of_kind("histogram")
    assert set(kinds) == set(METRICS)
