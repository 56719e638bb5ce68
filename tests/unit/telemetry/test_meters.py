"""What jobs record."""

from prometheus_client import CollectorRegistry

from multiverse.curation.llm.accounting import Accounting
from multiverse.telemetry.curation import CurationMeter
from multiverse.telemetry.engines import EngineMeter, batch_label
from multiverse.telemetry.evaluation import EvaluationMeter
from multiverse.telemetry.export import build
from multiverse.training.checkpoints import Outcome
from multiverse.training.loop import StepReport
from multiverse.training.observers import Metrics


def test_curation_counts_rows_and_what_is_new_in_the_accounts() -> None:
    registry = CollectorRegistry()
    value = registry.get_sample_value
    meter = CurationMeter(build(registry))
    meter.row("steps", "rejected")
    meter.row("texts", "curated")
    meter.row("texts", "curated")
    accounts = Accounting()
    steps = accounts.of("steps")
    steps.made, steps.cached, steps.attempts = 3, 1, 5
    steps.retries["429"] = 2
    steps.use(100, 20, 0.5)
    meter.llm(accounts.stages)
    steps.made, steps.attempts = 4, 6
    steps.use(50, 10, 0.25)
    meter.llm(accounts.stages)
    assert value("multiverse_curation_rows_total", {"stage": "texts", "outcome": "curated"}) == 2
    assert value("multiverse_curation_llm_calls_total", {"stage": "steps", "outcome": "made"}) == 4
    assert value("multiverse_curation_llm_calls_total", {"stage": "steps", "outcome": "cached"}) == 1
    assert value("multiverse_curation_llm_requests_total", {"stage": "steps"}) == 6
    assert value("multiverse_curation_llm_retries_total", {"stage": "steps", "reason": "429"}) == 2
    assert value("multiverse_curation_llm_tokens_total", {"stage": "steps", "kind": "prompt"}) == 150
    assert value("multiverse_curation_llm_cost_total", {"stage": "steps"}) == 0.75


def test_evaluation_says_how_far_it_is() -> None:
    registry = CollectorRegistry()
    value = registry.get_sample_value
    meter = EvaluationMeter(build(registry), "against", "generated")
    meter.wanted(10)
    meter.kept(True)
    meter.answered(True, tokens=30, critical_path=20)
    meter.answered(False, tokens=10, critical_path=10)
    whose = {"side": "against", "suite": "generated"}
    assert value("multiverse_evaluation_tasks", whose) == 10
    outcomes = ("correct", "wrong", "failed")
    there = [value("multiverse_evaluation_answers", whose | {"outcome": name}) for name in outcomes]
    assert there == [2, 1, 0]
    assert value("multiverse_evaluation_tokens_total", whose) == 40
    assert value("multiverse_evaluation_critical_path_tokens_total", whose) == 30


def test_training_step_and_checkpoints() -> None:
    registry = CollectorRegistry()
    value = registry.get_sample_value
    observer = Metrics(build(registry))
    observer.step(StepReport(4, 2.5, {"tag": 0.5, "text": 3.0}, 600, 2.0, 1e-4, 0.7), 10)
    observer.step(StepReport(5, 2.0, {"tag": 0.25}, 400, 2.0, 1e-4, 0.7), 10)
    observer.saved(Outcome(6, 3.0, 1000, None))
    observer.saved(Outcome(8, 1.0, 0, "worker 1: no room"))
    assert value("multiverse_training_step") == 6
    assert value("multiverse_training_loss", {"part": "all"}) == 2.0
    assert value("multiverse_training_loss", {"part": "tag"}) == 0.25
    assert value("multiverse_training_tokens_total") == 1000
    assert value("multiverse_training_step_seconds_sum") == 4.0
    assert value("multiverse_checkpoints_total", {"outcome": "saved"}) == 1
    assert value("multiverse_checkpoints_total", {"outcome": "failed"}) == 1
    assert value("multiverse_checkpoint_seconds_sum") == 3.0
    assert value("multiverse_checkpoint_bytes") == 1000


def test_engine_tells_kv_in_bytes_and_steps_by_batch() -> None:
    registry = CollectorRegistry()
    value = registry.get_sample_value
    figures = {"leased_blocks": 3, "host_blocks": 2, "block_bytes": 100, "exported_bytes": 7, "kv_usage": 0.5}
    EngineMeter(build(registry)).take(figures | {"steps": [(1.0, 0.01), (5.5, 0.02)]})
    places = ("cache", "host", "export")
    assert [value("multiverse_kv_held_bytes", {"place": place}) for place in places] == [300, 200, 7]
    assert value("multiverse_step_seconds", {"batch": "4-7"}) == 0.02
    assert value("multiverse_kv_usage") == 0.5


def test_batches_are_labelled_by_powers_of_two() -> None:
    labels = [batch_label(rows) for rows in (1.0, 1.9, 2.0, 3.9, 4.0, 64.0, 127.5)]
    assert labels == ["1", "1", "2-3", "2-3", "4-7", "64-127", "64-127"]
