"""The Serve application with the builtin model, as ``multiverse serve`` starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONFIG = """
served_name: small
engine: {enforce_eager: true, kv_cache_gib: 1, max_model_len: 1024}
"""


@pytest.fixture(scope="module")
def client(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("serve")
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = "from multiverse.cli import app; app()"
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", command, "serve", "--config", str(config), "--port", str(port)],
            env=os.environ | {"PYTHONPATH": str(root / "platform")},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 400
        while f"small is served at http://127.0.0.1:{port}/v1" not in log.read_text(errors="replace"):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(1)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield client
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def ask(content: str, **fields: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": content}], "temperature": 0, **fields}


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(name + " ")).split()[-1])


def test_healthy(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}


def test_sequential_answer(client: httpx.Client) -> None:
    response = client.post("/v1/chat/completions", json=ask("Say hi.", max_tokens=8)).json()
    assert response["usage"]["completion_tokens"] == response["parallel"]["critical_path"] == 8


def test_forced_block_has_its_width_and_is_parallel(client: httpx.Client) -> None:
    body = ask("How do I sleep, eat and train well?", max_tokens=400, parallel={"mode": "force", "width": 3})
    response = client.post("/v1/chat/completions", json=body).json()
    assert [block["width"] for block in response["parallel"]["blocks"]] == [3]
    assert response["parallel"]["x"] > 1.2


def test_client_that_goes_leaves_nothing_behind(client: httpx.Client) -> None:
    body = ask("Tell a long story.", max_tokens=600, parallel={"mode": "force", "width": 3})
    with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as stream:
        next(stream.iter_lines())
    deadline = time.monotonic() + 30
    while metric(client, "multiverse_requests_running") > 0 or metric(client, "multiverse_leases") > 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_body_of_10_megabytes_is_refused_through_the_proxy(client: httpx.Client) -> None:
    assert client.post("/v1/chat/completions", json=ask("x" * 10_000_000)).status_code == 413
