"""Metrics as Ray's agent exports them."""

import secrets
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from multiverse.telemetry.cluster import scrape as scrape_cluster
from multiverse.telemetry.engines import LEASES, REBUILDS
from multiverse.telemetry.export import build_ray
from multiverse.telemetry.metrics import METRICS
from multiverse.telemetry.recorders import Recorder
from multiverse.telemetry.requests import FORK_WIDTH, TOKENS

pytestmark = pytest.mark.slow

REPORT_SECONDS = 1


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Port of the metrics agent of a Ray cluster of this test's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        # Without one Ray would write a token into the home folder.
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_metrics_report_interval_ms", str(1000 * REPORT_SECONDS))
        ray.init(
            "local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, _metrics_export_port=port
        )
        yield port
        ray.shutdown()


@pytest.fixture(scope="module", params=[False, True], ids=["util", "serve"])
def recorder(request: pytest.FixtureRequest, port: int) -> Recorder:
    return build_ray("tiny", serve=request.param)


def scrape(port: int, wanted: set[str], seconds: float = 60) -> dict[str, tuple[str, float]]:
    """Type and value of the ``multiverse`` samples, by sample name, once all of ``wanted`` are there."""
    deadline = time.monotonic() + seconds
    samples: dict[str, tuple[str, float]] = {}
    while not wanted <= samples.keys():
        assert time.monotonic() < deadline, f"not exported within {seconds} s: {wanted - samples.keys()}"
        time.sleep(0.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        samples = {
            sample.name: (family.type, sample.value)
            for family in families
            for sample in family.samples
            if "multiverse" in sample.name
        }
    return samples


def test_every_metric_is_exported_under_its_name_with_the_prefix_ray(port: int) -> None:
    recorder = build_ray("tiny")
    for metric in METRICS:
        record = {"counter": recorder.inc, "gauge": recorder.set, "histogram": recorder.observe}[metric.kind]
        record(metric, 2.0, **dict.fromkeys(metric.labels, "x"))
    names = {f"ray_{metric.name}" + ("_count" if metric.kind == "histogram" else "") for metric in METRICS}
    samples = scrape(port, names)
    assert samples["ray_multiverse_tokens_total"] == ("counter", 2.0)
    assert samples["ray_multiverse_leases"] == ("gauge", 2.0)
    assert samples["ray_multiverse_fork_width_count"] == ("histogram", 1.0)


def in_the_cluster(name: str, model: str) -> list[float]:
    """A metric's values for one model."""
    families = text_string_to_metric_families(scrape_cluster().decode())
    samples = [sample for family in families if family.name == name for sample in family.samples]
    return [sample.value for sample in samples if sample.labels["model"] == model]


def test_cluster_gathered_as_one_text_has_the_same_and_the_model(port: int) -> None:
    recorder = build_ray("gathered")
    recorder.set(LEASES, 7)
    deadline = time.monotonic() + 60
    while not (found := in_the_cluster("ray_multiverse_leases", "gathered")):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert found == [7.0]
    # Much longer than Ray keeps a gauge that is not set again.
    time.sleep(8 * REPORT_SECONDS)
    assert in_the_cluster("ray_multiverse_leases", "gathered") == [7.0]
    del recorder


def test_nothing_added_is_not_an_error(recorder: Recorder) -> None:
    recorder.inc(TOKENS, 0, mode="auto")


def test_label_the_metric_does_not_have_is_refused(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match=r"multiverse_rebuilds_total has the labels \('reason',\), not \('cause',\)"):
        recorder.inc(REBUILDS, cause="evicted")


def test_missing_label_is_refused(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="multiverse_tokens_total"):
        recorder.inc(TOKENS)


@pytest.mark.parametrize("metric", [LEASES, FORK_WIDTH], ids=lambda metric: metric.name)
def test_metric_of_another_kind_is_refused(recorder: Recorder, metric: object) -> None:
    with pytest.raises(KeyError):
        recorder.inc(metric)  # type: ignore[arg-type]
