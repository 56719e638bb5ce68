"""``jobs/evaluate.py`` on Ray Data: over HTTP by two workers, and with the Multiverse engine inside the cluster."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.llm_server import Server, llm_server, seeded
from tests.integration.ray_head import BIN, ray_head
from tests.unit.evaluation.accuracy_fakes import right_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SUBMIT = [str(BIN / "ray"), "job", "submit", "--working-dir", ".", "--runtime-env-json"]
RUNTIME = '{"env_vars": {"PYTHONPATH": "platform"}}'


@pytest.fixture(scope="module")
def cluster(root: Path) -> Iterator[dict[str, str]]:
    path = os.pathsep.join([str(root / "platform"), str(root)])
    with ray_head(cpus=4, variables={"PYTHONPATH": path}) as environment:
        yield environment


def config(out: Path, **values: Any) -> Path:
    given = {"suites": [{"name": "generated", "count": 60}], "out": str(out), "concurrency": 8, "backoff_seconds": 0.05}
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(given | values))
    return path


def submitted(root: Path, cluster: dict[str, str], path: Path) -> dict[str, Any]:
    environment = cluster | {"RAY_ADDRESS": cluster["RAY_DASHBOARD_ADDRESS"]}
    entrypoint = ["--", "python", "jobs/evaluate.py", "--config", str(path), "--json"]
    job = subprocess.run(
        [*SUBMIT, RUNTIME, *entrypoint], cwd=root, env=environment, capture_output=True, text=True, timeout=500
    )
    assert job.returncode == 0, job.stdout[-4000:]
    report: dict[str, Any] = json.loads((Path(yaml.safe_load(path.read_text())["out"]) / "report.json").read_text())
    return report


def requests_when_quiet(server: Server) -> int:
    """How many there were when a killed run's workers had ended too."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < 3:
        if len(server.requests) != count:
            count, since = len(server.requests), time.monotonic()
        time.sleep(0.1)
    return count


def side(report: dict[str, Any], name: str = "model") -> dict[str, Any]:
    return report["suites"]["generated"]["sides"][name]  # type: ignore[no-any-return]


def test_two_workers_ask_a_failing_server_for_all_answers(root: Path, cluster: dict[str, str], tmp_path: Path) -> None:
    answers = right_answers(60)
    faults = ("500", "reset", "truncated")
    with llm_server(lambda body: answers[body["messages"][0]["content"]], fault=seeded(2, 0.2, faults)) as server:
        target = {"base_url": server.url}
        report = submitted(root, cluster, config(tmp_path / "run", model=target, workers={"count": 2}, attempts=10))
        good = [request.prompt for request in server.requests if request.fault == "none"]
        asked = len(server.requests)
        submitted(root, cluster, config(tmp_path / "run", model=target, workers={"count": 2}, attempts=10))
        assert len(server.requests) == asked
    assert (side(report)["pass@1"]["value"], side(report)["failed"]) == (1.0, 0)
    assert sorted(good) == sorted(answers)
    assert len({request.connection for request in server.requests}) > 1


def test_killed_it_goes_on_behind_what_it_had(root: Path, cluster: dict[str, str], tmp_path: Path) -> None:
    answers = right_answers(60)
    with llm_server(lambda body: answers[body["messages"][0]["content"]], latency=0.4) as server:
        path = config(tmp_path / "run", model={"base_url": server.url}, concurrency=4)
        command = [str(BIN / "python"), "jobs/evaluate.py", "--config", str(path)]
        process = subprocess.Popen(command, cwd=root, env=cluster)
        results = tmp_path / "run" / "answers-model.jsonl"
        deadline = time.monotonic() + 120
        while not results.exists() or results.read_bytes().count(b"\n") < 10:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = results.read_bytes().count(b"\n")
        asked = requests_when_quiet(server)
        report = submitted(root, cluster, path)
    assert 10 <= kept < 60
    assert len(server.requests) - asked == 60 - kept
    assert side(report)["pass@1"]["value"] == 1.0


def test_the_engine_runs_inside_the_cluster_and_forces_answers_at_budgets(
    root: Path, cluster: dict[str, str], tmp_path: Path
) -> None:
    engine = {"dtype": "float32", "max_model_len": 1024, "kv_cache_gib": 0.5, "enforce_eager": True, "self_test": False}
    path = config(
        tmp_path / "run",
        model={"model": "builtin:multiverse-smollm2-135m", "engine": engine},
        suites=[{"name": "generated", "count": 20, "max_tokens": 400}],
        budgets=[60],
        concurrency=16,
    )
    report = submitted(root, cluster, path)
    found = side(report)
    assert found["failed"] == 0
    assert found["parallel"] >= 0.5 and found["x"] > 1.2
    assert found["valid_of_parallel"] >= 0.8
    (row,) = report["suites"]["generated"]["budgets"]["rows"]
    assert row["model"]["forced"] > 0.5
    assert row["model"]["critical_path"] < 60 + 64 + 10
