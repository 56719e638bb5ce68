"""The speed grid on a real engine: small, interrupted, gone on with, and a chain's shape."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from multiverse.config import EngineOptions
from multiverse.evaluation.speed.config import SpeedConfig
from multiverse.evaluation.speed.measure import Measured, measure
from multiverse.evaluation.speed.report import write_report
from tests.integration.ray_head import BIN, ray_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHAIN = """Before it.
<Parallel>
<Goal>
<Outline>
1: one side of it
</Outline>
<Outline>
2: the other side of it
</Outline>
</Goal>
<Path>
1: Look at one side of it, and at what is behind it, for as long as that takes.
</Path>
<Path>
2: Look at the other side.
</Path>
<Conclusion>
Both sides are seen.
</Conclusion>
</Parallel>
After it."""


@pytest.fixture(scope="module")
def config(builtin_model: Path, tmp_path_factory: pytest.TempPathFactory) -> SpeedConfig:
    folder = tmp_path_factory.mktemp("speed")
    (folder / "chain.xml").write_text(CHAIN)
    return SpeedConfig(
        model=str(builtin_model),
        out=str(folder / "run"),
        batches=(1, 2),
        parallelism=(1.5, 4.0),
        contexts=(256,),
        branch_tokens=48,
        traces=(str(folder / "chain.xml"),),
        repeats=2,
        minutes=30,
        engine=EngineOptions(
            dtype="float32", enforce_eager=True, kv_cache_gib=0.5, max_num_seqs=16, max_model_len=2048, self_test=False
        ),
    )


class Interrupted(RuntimeError):
    pass


@pytest.fixture(scope="module")
def measured(config: SpeedConfig) -> Measured:
    """Interrupted behind the third run, and gone on with."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        asyncio.run(measure(config, say))
    assert said[0] == "5 cells, 0 left out; 10 of 10 runs to go"
    said.clear()
    found = asyncio.run(measure(config, said.append))
    assert said[0] == "5 cells, 0 left out; 7 of 10 runs to go"
    return found


def test_every_cell_is_measured_as_often_as_asked(measured: Measured) -> None:
    runs = sorted((record.cell, record.repeat) for record in measured.records)
    cells = ["b1-c128-trace-chain", "b1-c256-x1.5", "b1-c256-x4", "b2-c256-x1.5", "b2-c256-x4"]
    assert runs == [(cell, repeat) for cell in cells for repeat in (0, 1)]


def test_figures_are_such_as_an_engine_can_have(measured: Measured) -> None:
    by_cell = {record.cell: record for record in measured.records}
    four = by_cell["b1-c256-x4"]
    assert 3.5 < four.x < 4.0
    assert sorted(four.curve) == [1, 4]
    assert sorted(by_cell["b2-c256-x4"].curve) == [2, 8]
    for record in measured.records:
        # Wide, for the machine may have other work.
        assert 0.1 < record.sequential_s / record.structured_s / record.limit < 10
        assert 0.1 * record.x < record.limit < 3 * record.x
        assert 0 <= record.others <= 1
        assert 0 < record.join_s < record.structured_s
        assert record.second_prefill_s is not None
    # As many tokens take longer one after the other than four at a time.
    assert four.sequential_s > four.structured_s


def test_report_is_written_and_another_length_is_refused(measured: Measured, config: SpeedConfig) -> None:
    report = write_report(measured)
    assert len(report["cells"]) == 5
    assert json.loads((Path(config.out) / "report.json").read_text())["figures"]["cells"] == 5
    other = config.model_copy(update={"branch_tokens": 64})
    with pytest.raises(ValueError, match="another model, engine or length"):
        asyncio.run(measure(other))


def test_job_measures_the_same_on_a_ray_cluster(root: Path, config: SpeedConfig, tmp_path: Path) -> None:
    values = config.model_dump(mode="json") | {"out": str(tmp_path / "run"), "traces": [], "batches": [1], "repeats": 1}
    path = tmp_path / "benchmark.yaml"
    path.write_text(yaml.safe_dump(values))
    runtime = json.dumps({"env_vars": {"PYTHONPATH": "platform", "HF_HUB_OFFLINE": "1"}})
    job = ["python", "jobs/benchmark.py", "--config", str(path), "--json"]
    with ray_head(cpus=4) as environment:
        done = subprocess.run(
            [str(BIN / "ray"), "job", "submit", "--working-dir", ".", "--runtime-env-json", runtime, "--", *job],
            cwd=root,
            env=environment | {"RAY_ADDRESS": environment["RAY_DASHBOARD_ADDRESS"]},
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [cell["cell"] for cell in report["cells"]] == ["b1-c256-x1.5", "b1-c256-x4"]
    assert report["command"] == "jobs/benchmark.py --config benchmark.yaml --json"
