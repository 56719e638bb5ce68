"""What the pods of k8s/overlays/cpu serve, deployed as KubeRay does it: by Serve's configuration, to the dashboard."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from multiverse.application import free_port
from multiverse.serving.access.key_file import entry
from tests.integration.ray_head import BIN, ray_head
from tests.unit.k8s.rendered import ROOT, containers, pods, render, serve_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KEY = "mv-test"


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    (found,) = [value for value in render("cpu") if value["kind"] == "RayService"]
    return found


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of keys, as mounted of the Secret."""
    path = tmp_path_factory.mktemp("served") / "keys.yaml"
    path.write_text(entry("alice", KEY))
    return path


@pytest.fixture(scope="module")
def client(service: dict[str, Any], keys: Path) -> Iterator[httpx.Client]:
    """Only the port and the place of the keys are this test's own."""
    folder = keys.parent
    config, port = serve_config(service), free_port()
    config["http_options"]["port"] = port
    config["applications"][0]["args"]["access"]["keys_file"] = str(keys)
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    variables = {"PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)]), "HF_HUB_OFFLINE": "1"}
    with chdir(ROOT), ray_head(cpus=2, variables=variables) as head:
        command = [str(BIN / "serve"), "deploy", str(folder / "serve.yaml")]
        subprocess.run([*command, "--address", head["RAY_DASHBOARD_ADDRESS"]], env=head, check=True, cwd=folder)
        deadline, status = time.monotonic() + 400, ""
        while "RUNNING" not in status:
            status_command = [str(BIN / "serve"), "status", "--address", head["RAY_DASHBOARD_ADDRESS"]]
            report = subprocess.run(status_command, env=head, capture_output=True, text=True)
            applications = (
                (yaml.safe_load(report.stdout) or {}).get("applications", {}) if not report.returncode else {}
            )
            status = applications.get("multiverse", {}).get("status", "")
            assert "FAILED" not in status and time.monotonic() < deadline, report.stdout[-3000:] + report.stderr[-1000:]
            time.sleep(2)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as found:
            yield found


def test_request_of_the_readme_is_answered(client: httpx.Client) -> None:
    _, _, rest = (ROOT / "k8s/README.md").read_text().partition("-d '")
    body = json.loads(rest.partition("}'")[0] + "}")
    answer = client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200, answer.text
    assert [block["width"] for block in answer.json()["parallel"]["blocks"]] == [3]


def test_without_a_key_nothing_is_answered(client: httpx.Client) -> None:
    assert client.get("/v1/models").status_code == 401


def test_readiness_of_a_worker_is_answered(client: httpx.Client, service: dict[str, Any]) -> None:
    (worker,) = [pod for which, pod in pods(service) if which.startswith("worker")]
    assert client.get(containers(worker)[0]["readinessProbe"]["httpGet"]["path"]).status_code == 200


def test_liveness_is_answered_without_the_token(client: httpx.Client, service: dict[str, Any]) -> None:
    probe = containers(dict(pods(service))["head"])[0]["livenessProbe"]["httpGet"]
    assert httpx.get(f"http://127.0.0.1:{probe['port']}{probe['path']}").status_code == 200


def test_a_changed_file_of_keys_is_in_force_at_once(client: httpx.Client, keys: Path) -> None:
    # As the kubelet renews a mounted Secret: another file in its place.
    new = keys.with_suffix(".new")
    new.write_text(entry("alice", "mv-other"))
    new.replace(keys)
    deadline = time.monotonic() + 20
    while client.get("/v1/models", headers={"authorization": "Bearer mv-other"}).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 401
