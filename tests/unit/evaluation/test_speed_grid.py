"""The speed grid: which cells fit, the limit, figures, the history of ratios, and the report."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from multiverse.config import ConfigError
from multiverse.engine.measure_costs import EngineCosts
from multiverse.evaluation.speed import history
from multiverse.evaluation.speed.config import SpeedConfig
from multiverse.evaluation.speed.grid import Cell, Estimate, LeftOut, Plan, Room, Size, cells, does_not_fit, plan
from multiverse.evaluation.speed.limit import limit, step_at
from multiverse.evaluation.speed.measure import Measured, size_of
from multiverse.evaluation.speed.records import Record, read
from multiverse.evaluation.speed.report import write_report
from multiverse.evaluation.speed.script import Writer
from multiverse.evaluation.speed.shape import even
from multiverse.evaluation.speed.summary import Spread, figures, rows
from multiverse.models.tokens import Tokens
from multiverse.storage import Folder

COSTS = EngineCosts(((1, 0.010), (4, 0.012), (16, 0.020), (64, 0.050)), 1e-7, 0.01, 1e-4, 0.05)
ROOM = Room(kv_tokens=100_000, block_size=128, rows=64, max_model_len=8192)
CONFIG = SpeedConfig(batches=(1, 2, 16), parallelism=(2.0, 8.0), contexts=(512, 2048), repeats=2, minutes=60)


def sizes(config: SpeedConfig, tokens: Tokens) -> dict[str, Size]:
    writer = Writer(tokens)
    return {cell.id: size_of(cell, writer.answer(cell.shape), writer) for cell in cells(config, tokens)}


def test_limit_of_equal_branches_is_k_times_the_step_of_one_over_the_step_of_k() -> None:
    curve = {1: 0.010, 4: 0.014, 8: 0.020, 32: 0.060}
    assert limit({4: 100}, 1, curve) == pytest.approx(4 * 0.010 / 0.014)
    assert limit({8: 100}, 1, curve) == pytest.approx(8 * 0.010 / 0.020)
    assert limit({8: 100}, 4, curve) == pytest.approx(8 * 0.014 / 0.060)
    assert limit({1: 50}, 1, curve) == pytest.approx(1.0)


def test_limit_of_a_shape_takes_each_step_by_its_rows() -> None:
    curve = {1: 0.010, 2: 0.011, 4: 0.014}
    assert limit({1: 30, 2: 20, 4: 50}, 1, curve) == pytest.approx(270 * 0.010 / (0.30 + 0.22 + 0.70))


def test_steps_between_measured_ones_are_in_proportion_and_none_are_guessed() -> None:
    curve = {1: 0.010, 4: 0.013, 8: 0.021}
    assert step_at(curve, 6) == pytest.approx(0.017)
    with pytest.raises(ValueError, match="9 rows was not measured"):
        step_at(curve, 9)


def test_grid_has_every_combination_once(tokens: Tokens) -> None:
    found = [cell.id for cell in cells(CONFIG, tokens)]
    assert len(found) == len(set(found)) == 12
    assert found[:3] == ["b1-c512-x2", "b1-c512-x8", "b1-c2048-x2"]


def test_cells_that_do_not_fit_are_left_out_with_the_reason(tokens: Tokens) -> None:
    found = plan(cells(CONFIG, tokens), sizes(CONFIG, tokens), ROOM, COSTS, CONFIG)
    reasons = {item.cell: item.reason for item in found.left_out}
    assert reasons["b16-c512-x8"] == "128 rows, the engine has 64"
    assert "tokens of KV, the cache holds 100000" not in reasons.get("b16-c512-x2", "")
    assert set(reasons) == {"b16-c512-x8", "b16-c2048-x8"}
    tight = replace(ROOM, kv_tokens=20_000)
    reasons = {
        item.cell: item.reason
        for item in plan(cells(CONFIG, tokens), sizes(CONFIG, tokens), tight, COSTS, CONFIG).left_out
    }
    assert "tokens of KV, the cache holds 20000" in reasons["b16-c512-x2"]


def test_sequence_longer_than_the_engine_holds_does_not_fit(tokens: Tokens) -> None:
    cell = Cell(1, 8000, even(2.0, 128), 2.0)
    size = sizes(CONFIG, tokens)["b1-c512-x2"]
    assert "the engine holds 8192" in (does_not_fit(cell, size, ROOM) or "")
    assert does_not_fit(replace(cell, context=4096), size, ROOM) is None


def test_time_goes_to_batch_1_first_and_what_is_beyond_is_left_out_with_its_seconds(tokens: Tokens) -> None:
    config = CONFIG.model_copy(update={"batches": (1, 2, 4)})
    every, size = cells(config, tokens), sizes(config, tokens)
    whole = plan(every, size, ROOM, COSTS, config)
    assert whole.left_out == ()
    assert whole.cells[:4] == ("b1-c512-x2", "b1-c512-x8", "b1-c2048-x2", "b1-c2048-x8")
    assert [cell.rsplit("-", 1)[0] for cell in whole.cells[4::2]] == ["b2-c512", "b4-c512", "b2-c2048", "b4-c2048"]
    tight = config.model_copy(update={"minutes": whole.seconds / 60 * 0.7})
    cut = plan(every, size, ROOM, COSTS, tight)
    assert cut.seconds <= tight.minutes * 60
    assert cut.cells == whole.cells[: len(cut.cells)]
    assert {item.cell for item in cut.left_out} == set(whole.cells) - set(cut.cells)
    assert all("s were left" in item.reason for item in cut.left_out)


def test_all_that_fits_is_measured_where_time_has_no_bound(tokens: Tokens) -> None:
    every, size = cells(CONFIG, tokens), sizes(CONFIG, tokens)
    whatever = plan(every, size, ROOM, None, CONFIG.model_copy(update={"minutes": None}))
    assert set(whatever.cells) == {cell.id for cell in every} - {"b16-c512-x8", "b16-c2048-x8"}
    assert {item.cell for item in whatever.left_out} == {"b16-c512-x8", "b16-c2048-x8"}


def test_estimate_grows_with_repeats_and_takes_steps_between_measured_ones_in_proportion(tokens: Tokens) -> None:
    assert Estimate(COSTS).step(10, 0) == pytest.approx(0.016)
    assert Estimate(COSTS).step(4, 1000) == pytest.approx(0.0124)
    every, size = cells(CONFIG, tokens), sizes(CONFIG, tokens)
    once = plan(every, size, ROOM, COSTS, CONFIG.model_copy(update={"repeats": 1})).seconds
    assert plan(every, size, ROOM, COSTS, CONFIG).seconds == pytest.approx(2 * once)
    first = plan([cell for cell in every if cell.batch == 1], size, ROOM, COSTS, CONFIG).seconds / 2
    oftener = CONFIG.model_copy(update={"repeats": 1, "repeats_alone": 3})
    assert plan(every, size, ROOM, COSTS, oftener).seconds == pytest.approx(once + 2 * first)


def test_repeats_that_are_there_take_no_time(tokens: Tokens) -> None:
    every, size = cells(CONFIG, tokens), sizes(CONFIG, tokens)
    fresh = plan(every, size, ROOM, COSTS, CONFIG)
    first, whole = ({(cell, repeat) for cell in fresh.cells for repeat in range(count)} for count in (1, 2))
    assert plan(every, size, ROOM, COSTS, CONFIG, whole).seconds == 0
    assert plan(every, size, ROOM, COSTS, CONFIG, first).seconds == pytest.approx(fresh.seconds / 2)
    one = plan(every, size, ROOM, COSTS, CONFIG, {(fresh.cells[0], 0)}).seconds
    assert fresh.seconds / 2 < one < fresh.seconds
    hurried = CONFIG.model_copy(update={"minutes": 0.01})
    assert set(plan(every, size, ROOM, COSTS, hurried, whole).cells) == set(fresh.cells)


def record(cell: str, repeat: int, structured: float, join: float = 0.08, prefill: float | None = 0.8) -> Record:
    curve = {1: 0.010, 2: 0.011, 8: 0.016, 16: 0.020}
    times = (structured, 10.0, 5.0, curve, 0.02, 0.016, join, prefill)
    return Record(cell, repeat, 1000, 7.5, *times, others=0.02, commit="abc")


@pytest.fixture
def measured(tokens: Tokens, tmp_path: Path) -> Measured:
    config = CONFIG.model_copy(update={"out": str(tmp_path / "run")})
    every = {cell.id: cell for cell in cells(config, tokens)}
    records = (
        record("b1-c512-x8", 0, 2.00),
        record("b1-c512-x8", 1, 2.50),
        record("b1-c512-x8", 2, 2.05),
        record("b2-c512-x8", 0, 2.40, prefill=0.8),
        record("b2-c512-x8", 1, 2.44, join=0.05, prefill=None),
        record("b1-c512-x2", 0, 2.0, join=0.5, prefill=0.4),
    )
    chosen = Plan(("b1-c512-x2", "b1-c512-x8", "b2-c512-x8", "b2-c2048-x8"), (LeftOut("b16-c512-x8", "too large"),))
    return Measured(config, every, sizes(config, tokens), chosen, records)


def test_rows_have_medians_and_spread(measured: Measured) -> None:
    _, row, other = rows(measured)
    assert row.cell == "b1-c512-x8"
    assert row.over_ar == Spread(pytest.approx(10 / 2.05), 4.0, 5.0)
    assert row.of_limit == Spread(pytest.approx(2 / 2.05), 0.8, 1.0)
    assert row.decoding == Spread(pytest.approx(2 / 2.05), 0.8, 1.0)
    assert other.decoding.median == pytest.approx(2.2 / 2.42, abs=1e-4)
    assert row.join_gain.median == pytest.approx(10)
    assert (row.branch_step.median, other.branch_step.median) == (1.0, pytest.approx(0.8))
    assert (other.repeats, other.join_gain.median) == (2, pytest.approx(10))


def test_misses_name_each_bound_that_does_not_hold(measured: Measured) -> None:
    short, _, other = rows(measured)
    assert short.misses == []  # 256 tokens of branches: a second prefill may win
    assert other.misses == ["0.827 of the limit, 0.9 is the bound"]
    slow = replace(other, over_ar=Spread(0.9, 0.9, 0.9), join_gain=Spread(0.7, 0.7, 0.7))
    assert len(slow.misses) == 3
    alone = replace(other, batch=1, of_limit=Spread(0.94, 0.9, 1.0))
    assert alone.misses == ["0.940 of the limit, 0.95 is the bound", "0.909 of the time is decoding, 0.95 is the bound"]


def test_figures_are_those_of_the_worst_cells(measured: Measured) -> None:
    found = figures(rows(measured))
    assert found["cells"] == 3
    assert found["cells_within_all_bounds"] == 2
    assert found["of_limit_lowest"] == pytest.approx(0.826, abs=0.001)
    assert found["of_limit_lowest_batch_1"] == pytest.approx(2 / 2.05)
    assert found["join_gain_lowest"] == pytest.approx(10)


def test_report_has_all_cells_those_left_out_and_no_folder_of_this_machine(measured: Measured) -> None:
    report = write_report(measured, "multiverse bench speed", "## What stands in the way\n\nNothing.")
    out = Path(measured.config.out)
    text = (out / "report.md").read_text()
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report))
    assert report["kind"] == "speed"
    assert report["not_measured"] == ["b2-c2048-x8"]
    assert "| `b16-c512-x8` | too large |" in text
    assert "## What stands in the way" in text
    assert "2 of 3 cells are within all bounds" in text
    assert "differ by more than" not in text
    assert str(out.parent) not in text
    with (out / "cells.csv").open() as file:
        assert [line["cell"] for line in csv.DictReader(file)] == ["b1-c512-x2", "b1-c512-x8", "b2-c512-x8"]
    with (out / "repeats.csv").open() as file:
        assert [line["structured_s"] for line in csv.DictReader(file)][:3] == ["2.0", "2.5", "2.05"]
    assert {path.name for path in out.glob("*.png")} == {"speed-up.png", "of-limit.png", "joins.png"}


def test_report_names_cells_whose_machine_was_in_different_states(measured: Measured) -> None:
    slow = replace(record("b1-c512-x8", 3, 2.0), curve={1: 0.0121, 8: 0.016})
    write_report(replace(measured, records=(*measured.records, slow)))
    text = (Path(measured.config.out) / "report.md").read_text()
    assert "differ by more than 20% between the repeats of `b1-c512-x8`:" in text


def test_report_of_nothing_is_refused(measured: Measured) -> None:
    with pytest.raises(ValueError, match="no cell"):
        write_report(replace(measured, records=()))


def test_records_are_read_as_they_were_kept(tmp_path: Path) -> None:
    from dataclasses import asdict

    kept = record("b1-c512-x8", 1, 2.0)
    folder = Folder(tmp_path)
    folder.write(kept.name, json.dumps(asdict(kept)).encode())
    assert read(folder) == [kept]


REPORT = {
    "cells": [
        {"cell": "b1-c512-x2", "branch_tokens": 255, "over_ar": 1.8, "decoding": 1.0, "join_gain": 2.0},
        {"cell": "b1-c512-x8", "branch_tokens": 1024, "over_ar": 5.0, "decoding": 0.97, "join_gain": 8.0},
    ]
}


def test_ratios_hold_the_gain_of_a_join_where_there_is_much_to_prefill() -> None:
    assert history.of_report(REPORT) == {
        "b1-c512-x2": {"over_ar": 1.8, "decoding": 1.0},
        "b1-c512-x8": {"over_ar": 5.0, "decoding": 0.97, "join_gain": 8.0},
    }


def test_a_ratio_may_fall_by_15_percent_and_no_more() -> None:
    stored = {"a": {"over_ar": 2.0, "of_limit": 1.0}}
    assert history.fallen({"a": {"over_ar": 1.71, "of_limit": 0.86}}, stored) == []
    assert history.fallen({"a": {"over_ar": 1.69, "of_limit": 0.86}}, stored) == [
        "a, over_ar: 1.690, 16% under the stored 2.000"
    ]
    assert history.fallen({}, {"a": {"over_ar": 2.0}}) == ["a, over_ar: was 2.000, was not measured"]


def test_history_keeps_the_newest_last_and_no_more_than_twenty(tmp_path: Path) -> None:
    path = tmp_path / "results" / "history.json"
    for number in range(23):
        history.store(path, {"a": {"over_ar": float(number)}}, "abc")
    entries = history.load(path)
    assert len(entries) == 20
    assert entries[-1]["ratios"] == {"a": {"over_ar": 22.0}}


@pytest.mark.parametrize("text", ["{", "[1]", '[{"ratios": 3}]', '[{"ratios": {"a": {"over_ar": "fast"}}}]'])
def test_damaged_history_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not a history"):
        history.load(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batches": [0]}, "batches"),
        ({"batches": [1, 1]}, "different numbers"),
        ({"contexts": [64]}, "128 or more"),
        ({"parallelism": [float("inf")]}, "different numbers"),
        ({"traces": ["nowhere.xml"]}, "there is no file nowhere.xml"),
        ({"minutes": 0}, "minutes"),
        ({"speed": 1}, "not a known field"),
    ],
)
def test_configuration_that_cannot_be_used_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpeedConfig.of(values)


def test_dtype_that_is_not_given_is_one_that_the_cpu_computes_in(tmp_path: Path) -> None:
    from multiverse.models.precision import slow_on_this_cpu

    expected = "float32" if slow_on_this_cpu("bfloat16") else "bfloat16"
    (tmp_path / "some.yaml").write_text("engine: {max_num_seqs: 8}")
    (tmp_path / "given.yaml").write_text("engine: {dtype: float16}")
    assert SpeedConfig.load(None).engine.dtype == expected
    assert SpeedConfig.load(None).engine.max_num_seqs == 256
    assert SpeedConfig.load(tmp_path / "some.yaml").engine.dtype == expected
    assert SpeedConfig.load(tmp_path / "given.yaml").engine.dtype == "float16"


def test_configuration_of_the_job_is_accepted(root: Path) -> None:
    config = SpeedConfig.load(root / "jobs/configs/benchmark.yaml", minutes=5.0)
    assert config.minutes == 5.0
    assert max(config.batches) == 64


def test_chain_that_is_no_document_is_refused_with_its_name(tokens: Tokens, tmp_path: Path) -> None:
    path = tmp_path / "broken.xml"
    path.write_text("<Parallel> and no goal")
    with pytest.raises(ValueError, match=r"broken\.xml"):
        cells(CONFIG.model_copy(update={"traces": (str(path),)}), tokens)
