"""The same 20 steps by every strategy, with two workers: the same loss, and a checkpoint that goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from multiverse.application import free_port
from multiverse.training.config import TrainConfig
from multiverse.training.observers import Curve
from multiverse.training.run import train
from tests.unit.training.tiny_run import tiny_config, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = {"rows": 40, "curriculum": {"kind": "linear", "passes": 2}}
"""20 steps of 4 rows."""
STRATEGIES: dict[str, dict[str, Any]] = {
    "fsdp2": {"name": "fsdp2", "activation_checkpointing": True},
    "zero1": {"name": "deepspeed", "zero_stage": 1},
    "zero2": {"name": "deepspeed", "zero_stage": 2},
    "zero3": {"name": "deepspeed", "zero_stage": 3},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    notes = Curve()
    train(tiny_config(model, tmp_path_factory.mktemp("alone"), **ROWS), notes)
    assert len(notes.losses) == 20
    return notes.losses


def run_workers(root: Path, config: TrainConfig, folder: Path, workers: int) -> dict[int, float]:
    path, out = folder / "config.yaml", folder / "losses.json"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    common = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(root / "platform"), str(root)]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(workers),
        "DS_ACCELERATOR": "cpu",
    }
    command = [sys.executable, "-m", "tests.integration.strategy_worker", str(path), str(out)]
    processes = [
        subprocess.Popen(command, cwd=root, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(workers)
    ]
    try:
        assert [process.wait(300) for process in processes] == [0] * workers
    finally:
        for process in processes:
            process.kill()
    return {int(step): loss for step, loss in json.loads(out.read_text()).items()}


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_workers_have_the_loss_of_one(
    root: Path, model: Path, alone: dict[int, float], tmp_path: Path, name: str
) -> None:
    config = tiny_config(model, tmp_path, strategy=STRATEGIES[name], workers={"count": 2}, **ROWS)
    losses = run_workers(root, config, tmp_path, workers=2)
    assert losses == pytest.approx(alone, abs=1e-2)
    assert losses[19] < losses[0]


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_workers_go_on_where_they_stopped(
    root: Path, model: Path, alone: dict[int, float], tmp_path: Path, name: str
) -> None:
    config = tiny_config(model, tmp_path, strategy=STRATEGIES[name], workers={"count": 2}, **ROWS)
    first = run_workers(root, config.model_copy(update={"max_steps": 9}), tmp_path, workers=2)
    rest = run_workers(root, config, tmp_path, workers=2)
    assert sorted(first) == list(range(9)) and sorted(rest) == list(range(9, 20))
    assert first | rest == pytest.approx(alone, abs=1e-2)


def test_fsdp2_goes_on_with_another_number_of_workers(
    root: Path, model: Path, alone: dict[int, float], tmp_path: Path
) -> None:
    config = tiny_config(model, tmp_path, strategy=STRATEGIES["fsdp2"], workers={"count": 2}, **ROWS)
    first = run_workers(root, config.model_copy(update={"max_steps": 9}), tmp_path, workers=2)
    rest = run_workers(root, config, tmp_path, workers=1)
    assert first | rest == pytest.approx(alone, abs=1e-2)
