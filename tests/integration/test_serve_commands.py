"""Ray's own commands start the application: ``serve deploy`` on a cluster that runs, and ``serve run``."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from multiverse.application import free_port
from tests.integration.ray_head import BIN, ray_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def head(root: Path) -> Iterator[dict[str, str]]:
    paths = os.pathsep.join([str(root / "platform"), str(root)])
    with ray_head(cpus=4, variables={"PYTHONPATH": paths}) as environment:
        yield environment


@pytest.fixture(scope="module")
def config(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The Serve file of the repository with one small engine and a port of its own; and the port."""
    values = yaml.safe_load((root / "deployments" / "serve.yaml").read_text())
    port = values["http_options"]["port"] = free_port()
    small = {"enforce_eager": True, "kv_cache_gib": 0.5, "max_model_len": 1024, "self_test": False}
    values["applications"][0]["args"] |= {"replicas": 1, "replicas_per_node": 1, "engine": small}
    path = tmp_path_factory.mktemp("serve") / "serve.yaml"
    path.write_text(yaml.safe_dump(values))
    return path, port


def answer(port: int) -> dict[str, Any]:
    body = {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": "Name two colours."}],
        "max_tokens": 300,
        "parallel": {"mode": "force", "width": 2},
    }
    response = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=120)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def wait_until_healthy(port: int, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the application is not there"
        time.sleep(1)


def test_serve_deploy_on_a_cluster_that_runs(head: dict[str, str], config: tuple[Path, int]) -> None:
    path, port = config
    dashboard = ["--address", head["RAY_DASHBOARD_ADDRESS"]]
    subprocess.run([BIN / "serve", "deploy", *dashboard, path], env=head, check=True, timeout=60)
    wait_until_healthy(port)
    assert [block["width"] for block in answer(port)["parallel"]["blocks"]] == [2]
    status = subprocess.run([BIN / "serve", "status", *dashboard], env=head, capture_output=True, text=True)
    assert yaml.safe_load(status.stdout)["applications"]["multiverse"]["status"] == "RUNNING"
    subprocess.run([BIN / "serve", "shutdown", "-y", *dashboard], env=head, check=True, timeout=120)


def test_serve_run(head: dict[str, str], config: tuple[Path, int]) -> None:
    path, port = config
    command = [str(BIN / "serve"), "run", "--address", head["RAY_ADDRESS"], str(path)]
    with subprocess.Popen(command, env=head) as server:
        try:
            wait_until_healthy(port)
            assert answer(port)["usage"]["completion_tokens"] > 0
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(90)
