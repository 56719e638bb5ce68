"""``ray job submit`` of the working directory alone, and a worker that is killed in the middle of a step."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from multiverse.training.observers import Curve
from multiverse.training.run import train
from tests.integration.ray_head import BIN, ray_head
from tests.unit.training.tiny_run import tiny_config, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = {"rows": 40, "curriculum": {"kind": "linear", "passes": 2}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A Ray head of its own; what a job's command line needs in its environment."""
    with ray_head(cpus=4) as environment:
        yield environment | {"RAY_ADDRESS": environment["RAY_DASHBOARD_ADDRESS"]}


def submit(root: Path, environment: dict[str, str], *entrypoint: str) -> "subprocess.Popen[str]":
    runtime = '{"env_vars": {"PYTHONPATH": "platform", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}}'
    command = [BIN / "ray", "job", "submit", "--working-dir", ".", "--runtime-env-json", runtime, "--", *entrypoint]
    return subprocess.Popen(
        [*map(str, command)],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def undisturbed(model: Path, folder: Path, workers: dict[str, int] | None = None) -> tuple[Path, dict[int, float]]:
    """The configuration of a run with several workers, and the losses that one worker has by step (from 1)."""
    whole = Curve()
    (folder / "alone").mkdir()
    train(tiny_config(model, folder / "alone", **STEPS), whole)
    config = tiny_config(model, folder, strategy={"name": "fsdp2"}, workers=workers or {"count": 2}, **STEPS)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path, {step + 1: loss for step, loss in whole.losses.items()}


def test_the_working_directory_is_all_that_a_job_needs(
    root: Path, model: Path, cluster: dict[str, str], tmp_path: Path
) -> None:
    path, expected = undisturbed(model, tmp_path)
    job = submit(root, cluster, "python", "jobs/train.py", "--config", str(path), "--json")
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert "succeeded" in output
    assert re.search(r'"finished": true', output), output
    losses = curve(tmp_path / "out" / "logs")
    assert losses == pytest.approx(expected, abs=1e-2)


def test_the_code_comes_from_the_working_directory(root: Path, cluster: dict[str, str]) -> None:
    script = "import multiverse, platform; print('from', multiverse.__file__, platform.system())"
    job = submit(root, cluster, "python", "-c", script)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 0, output
    assert re.search(r"from /tmp/ray-\w+/\S+/working_dir_files/\S+/platform/multiverse/__init__\.py Linux", output), (
        output
    )


def test_a_killed_worker_changes_nothing_of_the_curve(
    root: Path, model: Path, cluster: dict[str, str], tmp_path: Path
) -> None:
    path, expected = undisturbed(model, tmp_path)
    job = submit(root, cluster, "python", "jobs/train.py", "--config", str(path), "--json")
    victim = killed_after(tmp_path / "out" / "checkpoints", 3)
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert "resumed at step" in output, (victim, output)
    losses = curve(tmp_path / "out" / "logs")
    assert losses == pytest.approx(expected, abs=1e-2)


def test_elastic_workers_start_with_those_that_there_are(
    root: Path, model: Path, cluster: dict[str, str], tmp_path: Path
) -> None:
    path, expected = undisturbed(model, tmp_path, {"count": 6, "least": 2})
    job = submit(root, cluster, "python", "jobs/train.py", "--config", str(path), "--json")
    output, _ = job.communicate(timeout=400)
    assert job.returncode == 0, output
    size = re.search(r"Started training worker group of size (\d)", output)
    assert size is not None and int(size[1]) in (2, 3, 4), output
    assert curve(tmp_path / "out" / "logs") == pytest.approx(expected, abs=1e-2)


def killed_after(checkpoints: Path, count: int) -> int:
    """SIGKILL a training worker as soon as there were so many checkpoints; its process id."""
    deadline, seen = time.monotonic() + 200, set()
    while time.monotonic() < deadline:
        seen |= {path.parent.name for path in checkpoints.glob("step-*/manifest.json")}
        if len(seen) >= count:
            for process in psutil.process_iter(["cmdline"]):
                if any("RayTrainWorker" in part for part in process.info["cmdline"] or ()):
                    process.kill()
                    return int(process.pid)
        time.sleep(0.02)
    raise AssertionError(f"only {sorted(seen)} were seen")


def curve(logs: Path) -> dict[int, float]:
    """Loss by step, as TensorBoard shows it: the last value where a step was done twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = {}
    for file in sorted(logs.glob("events.*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(file))
        events.Reload()
        losses |= {event.step: event.value for event in events.Scalars("train/loss")}
    return losses
