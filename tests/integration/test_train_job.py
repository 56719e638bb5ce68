"""``ray job submit`` of the working directory alone, and a worker that is killed in the middle of a step."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from multiverse.application import free_port
from multiverse.models.prepare import prepare
from multiverse.training.observers import Curve
from multiverse.training.run import train
from tests.unit.models.tiny_model import write_base
from tests.unit.training.tiny_run import tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent
STEPS = {"rows": 40, "curriculum": {"kind": "linear", "passes": 2}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = write_base(tmp_path_factory.mktemp("base"))
    return prepare(str(base), tmp_path_factory.mktemp("prepared") / "model", dtype="float32")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray head of its own, in processes of their own group; what a job's command line needs in its environment."""
    port, dashboard = free_port(), free_port()
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-for-this-test-" + "0" * 16}
    command = [BIN / "ray", "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    options = ["--num-cpus=4", "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
    temporary = f"--temp-dir=/tmp/mv-{os.getpid()}"  # sockets' paths must be short
    with (tmp_path_factory.mktemp("ray") / "log").open("w") as log:
        head = subprocess.Popen(
            [*map(str, command), *options, temporary],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        below: list[psutil.Process] = []
        try:
            submit = environment | {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}", "DS_ACCELERATOR": "cpu"}
            deadline = time.monotonic() + 90
            while subprocess.run([BIN / "ray", "job", "list"], env=submit, capture_output=True, check=False).returncode:
                assert head.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(1)
            yield submit
        finally:
            below = psutil.Process(head.pid).children(recursive=True)
            os.killpg(head.pid, signal.SIGTERM)
            _, alive = psutil.wait_procs([psutil.Process(head.pid), *below], timeout=20)
            for process in alive:
                process.kill()
            head.wait()


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


def test_the_working_directory_is_all_that_a_job_needs(
    root: Path, model: Path, cluster: dict[str, str], tmp_path: Path
) -> None:
    whole = Curve()
    (tmp_path / "alone").mkdir()
    train(tiny_config(model, tmp_path / "alone", **STEPS), whole)
    config = tiny_config(model, tmp_path, strategy={"name": "fsdp2"}, workers={"count": 2}, **STEPS)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    job = submit(root, cluster, "python", "jobs/train.py", "--config", str(path), "--json")
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert "succeeded" in output
    assert re.search(r'"finished": true', output), output
    losses = curve(tmp_path / "out" / "logs")
    assert losses == pytest.approx({step + 1: loss for step, loss in whole.losses.items()}, abs=1e-2)


def test_the_code_comes_from_the_working_directory(root: Path, cluster: dict[str, str]) -> None:
    script = "import multiverse, platform; print('from', multiverse.__file__, platform.system())"
    job = submit(root, cluster, "python", "-c", f'"{script}"')
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 0, output
    assert re.search(r"from /tmp/mv-\d+/\S+/working_dir_files/\S+/platform/multiverse/__init__\.py Linux", output), (
        output
    )


def test_a_killed_worker_changes_nothing_of_the_curve(
    root: Path, model: Path, cluster: dict[str, str], tmp_path: Path
) -> None:
    whole = Curve()
    (tmp_path / "alone").mkdir()
    train(tiny_config(model, tmp_path / "alone", **STEPS), whole)
    config = tiny_config(model, tmp_path, strategy={"name": "fsdp2"}, workers={"count": 2}, **STEPS)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    job = submit(root, cluster, "python", "jobs/train.py", "--config", str(path), "--json")
    victim = killed_after(tmp_path / "out" / "checkpoints", 3)
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert "resumed at step" in output, (victim, output)
    losses = curve(tmp_path / "out" / "logs")
    assert losses == pytest.approx({step + 1: loss for step, loss in whole.losses.items()}, abs=1e-2)


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
