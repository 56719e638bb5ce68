"""The speed harness on an engine whose times are known: it has to find what they come to."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from multiverse.cli import app
from multiverse.engine.measure_costs import longest_prefill
from multiverse.evaluation.speed.config import SpeedConfig
from multiverse.evaluation.speed.measure import Measured, measure_on, measured_so_far
from multiverse.evaluation.speed.records import Record
from multiverse.evaluation.speed.report import write_report
from multiverse.evaluation.speed.runs import Runner
from multiverse.evaluation.speed.summary import rows
from multiverse.models.tokens import Tokens
from tests.unit.evaluation.simulated_engine import JOIN, PREFILL, ROW, STEP, SimulatedEngine


def step(rows: int) -> float:
    return STEP + ROW * rows


def run(model: Path, config: SpeedConfig, said: list[str]) -> Measured:
    script = Path(config.out).parent / "script.json"
    engine = SimulatedEngine(model, script)
    runner = Runner(engine, script, clock=lambda: engine.segments.now)  # type: ignore[arg-type]
    return asyncio.run(measure_on(runner, config, said.append))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SpeedConfig:
    return SpeedConfig(
        out=str(tmp_path_factory.mktemp("speed") / "run"),
        batches=(1, 3),
        parallelism=(1.0, 1.5, 4.0),
        contexts=(512,),
        branch_tokens=64,
        repeats=2,
    )


@pytest.fixture(scope="module")
def measured(model: Path, config: SpeedConfig) -> dict[str, Record]:
    return {record.cell: record for record in run(model, config, []).records}


@pytest.mark.parametrize(("cell", "batch", "width"), [("b1-c512-x4", 1, 4), ("b3-c512-x4", 3, 4)])
def test_steps_and_limit_are_those_of_the_engine(
    cell: str, batch: int, width: int, measured: dict[str, Record]
) -> None:
    found = measured[cell]
    assert found.curve == {batch: pytest.approx(step(batch)), batch * width: pytest.approx(step(batch * width))}
    # A few tokens behind the join are in sequence.
    assert found.limit == pytest.approx(width * step(batch) / step(batch * width), rel=0.08)


def test_run_in_sequence_takes_a_step_a_token(measured: dict[str, Record]) -> None:
    for cell, batch in (("b1-c512-x4", 1), ("b3-c512-x1.5", 3)):
        assert measured[cell].sequential_s == pytest.approx(measured[cell].tokens * step(batch))


def test_structured_run_takes_its_steps_its_fork_and_its_join(measured: dict[str, Record]) -> None:
    # Of 64 tokens of a branch the engine writes four, and two before the conclusion.
    assert measured["b1-c512-x4"].structured_s == pytest.approx(60 * step(4) + JOIN + 4 * step(1), rel=0.02)


def test_fork_and_steps_of_branches_are_told_apart(measured: dict[str, Record]) -> None:
    for cell, branches in (("b1-c512-x4", 4), ("b3-c512-x4", 12)):
        assert measured[cell].fork_s == pytest.approx(step(branches), abs=step(branches))
        assert measured[cell].branch_step_s == pytest.approx(step(branches), rel=0.01)


def test_join_and_second_prefill_are_told_apart(measured: dict[str, Record]) -> None:
    found = measured["b1-c512-x4"]
    assert found.join_s == pytest.approx(JOIN + step(1), abs=1.5 * step(4))
    # What stands behind the last whole block is prefilled too.
    assert found.second_prefill_s == pytest.approx(PREFILL * (256 + 1) + step(1), rel=0.02)


def test_one_branch_has_parallelism_1_and_no_gain(measured: dict[str, Record]) -> None:
    found = measured["b1-c512-x1"]
    assert (found.x, found.limit) == (1.0, pytest.approx(1.0))
    assert 0.85 < found.sequential_s / found.structured_s < 1.15


def test_second_start_measures_nothing_and_finds_the_same(
    model: Path, config: SpeedConfig, measured: dict[str, Record]
) -> None:
    said: list[str] = []
    again = run(model, config, said)
    assert said == ["6 cells, 0 left out; 0 of 12 runs to go"]
    assert {record.cell: record for record in again.records} == measured
    assert [row.repeats for row in rows(again)] == [2] * 6


def test_lost_record_is_measured_again_alone(model: Path, config: SpeedConfig, measured: dict[str, Record]) -> None:
    (Path(config.out) / measured["b3-c512-x4"].name).unlink()
    said: list[str] = []
    assert len(run(model, config, said).records) == 12
    assert said[0] == "6 cells, 0 left out; 1 of 12 runs to go"
    assert len(said) == 2


def test_wider_grid_takes_over_what_was_measured_and_another_length_is_refused(
    model: Path, config: SpeedConfig, measured: dict[str, Record]
) -> None:
    said: list[str] = []
    run(model, config.model_copy(update={"batches": (1, 2, 3)}), said)
    assert said[0] == "9 cells, 0 left out; 6 of 18 runs to go"
    more = run(model, config.model_copy(update={"repeats_alone": 4}), said)
    assert {row.batch: row.repeats for row in rows(more)} == {1: 4, 3: 2}
    with pytest.raises(ValueError, match="another model, engine or length"):
        run(model, config.model_copy(update={"branch_tokens": 80}), said)


def test_damaged_plan_and_records_of_another_shape_are_refused(
    model: Path, config: SpeedConfig, measured: dict[str, Record], tmp_path: Path
) -> None:
    here = config.model_copy(update={"model": str(model), "out": str(tmp_path / "run"), "batches": (1,)})
    run(model, here, [])
    record = tmp_path / "run/cells/b1-c512-x4/0.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"tokens": values["tokens"] + 1}))
    with pytest.raises(ValueError, match="b1-c512-x4 has others by now"):
        measured_so_far(here)
    (tmp_path / "run/plan.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        measured_so_far(here)


def test_what_is_there_is_reported_without_an_engine(
    model: Path, config: SpeedConfig, measured: dict[str, Record]
) -> None:
    here = config.model_copy(update={"model": str(model), "out": f"{config.out}-here"})
    with pytest.raises(ValueError, match="holds no run of this grid"):
        measured_so_far(here)
    whole = run(model, here, [])
    assert measured_so_far(here).plan == whole.plan
    assert {r.name: r for r in measured_so_far(here).records} == {r.name: r for r in whole.records}
    assert len(write_report(measured_so_far(here))["cells"]) == 6


def test_small_grid_fails_under_a_better_history_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def simulated(*_: object) -> AsyncIterator[Runner]:
        engine = SimulatedEngine(model, tmp_path / "script.json")
        yield Runner(engine, tmp_path / "script.json", clock=lambda: engine.segments.now)  # type: ignore[arg-type]

    monkeypatch.setattr("multiverse.evaluation.speed.measure.running", simulated)
    history = tmp_path / "history.json"
    (tmp_path / "short.yaml").write_text("branch_tokens: 32")
    asked = ["bench", "speed", "--small", "--repeats", "1", "--model", str(model)]
    asked += ["--config", str(tmp_path / "short.yaml"), "--out", str(tmp_path / "run"), "--history", str(history)]
    first = CliRunner().invoke(app, [*asked, "--store"])
    assert first.exit_code == 0, first.output
    (entry,) = json.loads(history.read_text())
    assert json.loads((tmp_path / "run/plan.json").read_text())["config"]["minutes"] is None
    assert sorted(entry["ratios"]) == ["b1-c512-x4", "b4-c512-x4"]

    assert CliRunner().invoke(app, asked).exit_code == 0
    entry["ratios"]["b4-c512-x4"]["over_ar"] *= 1.2
    history.write_text(json.dumps([entry]))
    fallen = CliRunner().invoke(app, asked)
    assert fallen.exit_code == 1
    assert "fallen: b4-c512-x4, over_ar" in fallen.output
    assert fallen.output.count("fallen:") == 1

    for more, message in (["--only-report"], "are not for it"), (["--out", str(tmp_path / "other")], "another grid"):
        (tmp_path / "other").mkdir(exist_ok=True)
        kept = json.loads((tmp_path / "run/plan.json").read_text())
        kept["config"]["batches"] = [1, 4, 16]
        (tmp_path / "other/plan.json").write_text(json.dumps(kept))
        refused = CliRunner().invoke(app, [*asked, *more])
        assert (refused.exit_code, message in refused.output) == (2, True), refused.output
    assert (tmp_path / "other/plan.json").exists()


def test_answer_other_than_scripted_is_an_error(model: Path, tokens: Tokens, tmp_path: Path) -> None:
    from multiverse.evaluation.speed.script import Writer, Written
    from multiverse.evaluation.speed.shape import even

    engine = SimulatedEngine(model, tmp_path / "script.json")
    runner = Runner(engine, tmp_path / "script.json", clock=lambda: engine.segments.now)  # type: ignore[arg-type]
    written = Writer(tokens).answer(even(2.0, 24))
    other = Written((*written.tokens[:-1], 77), written.goal, written.stretches)
    with pytest.raises(RuntimeError, match="not as it was scripted"):
        asyncio.run(runner.structured([Writer(tokens).text(100)], other))


def test_the_long_prefill_fits_into_short_sequences() -> None:
    assert [longest_prefill(length) for length in (8192, 1024, 256)] == [1024, 960, 192]
