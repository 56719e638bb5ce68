"""Every RayJob's entrypoint, as written, through ``ray job submit`` as KubeRay calls it."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import yaml

from tests.integration.llm_server import llm_server
from tests.integration.ray_head import BIN, ray_head
from tests.unit.curation.scripted import good_answer
from tests.unit.k8s.rendered import ROOT, render
from tests.unit.training.tiny_run import tiny_config, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ENTRYPOINTS = {v["metadata"]["name"]: v["spec"]["entrypoint"] for v in render("cpu/jobs") if v["kind"] == "RayJob"}
# tests/unit/k8s/test_names.py says that every script exists.
RUNNABLE = [name for name, entrypoint in ENTRYPOINTS.items() if (ROOT / shlex.split(entrypoint)[1]).exists()]
MOUNTED = "/etc/multiverse"


def small_training(folder: Path, llm: str) -> dict[str, object]:
    config = tiny_config(tiny_model(folder / "model"), folder, rows=8, workers={"count": 1})
    values: dict[str, object] = config.model_dump(mode="json")
    return values


def small_curation(folder: Path, llm: str) -> dict[str, object]:
    row = {"question": "a and b?", "chain": "We need both. a is 2 and 3, 5. b is 4 twice, 8. So 13.", "answer": "13"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return {
        "source": str(folder / "rows.jsonl"),
        "out": str(folder / "out"),
        "llm": {"base_url": llm, "model": "scripted"},
    }


def small_evaluation(folder: Path, llm: str) -> dict[str, object]:
    model = {"model": "builtin:multiverse-smollm2-135m", "engine": SMALL_ENGINE}
    return {"model": model, "suites": [{"name": "generated", "count": 2, "max_tokens": 60}], "out": str(folder / "out")}


def small_benchmark(folder: Path, llm: str) -> dict[str, object]:
    grid = {"batches": [1], "parallelism": [1, 2], "contexts": [256], "branch_tokens": 16, "repeats": 1}
    return {"model": "builtin:smollm2-135m", "out": str(folder / "out"), "engine": SMALL_ENGINE, **grid}


SMALL_ENGINE = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "kv_cache_gib": 0.5,
    "self_test": False,
}
# What stands in place of the mounted file, in a few steps' or calls' size.
SMALL: dict[str, Callable[[Path, str], dict[str, object]]] = {
    "train": small_training,
    "curate": small_curation,
    "evaluate": small_evaluation,
    "benchmark": small_benchmark,
}


@pytest.fixture(scope="module")
def llm() -> Iterator[str]:
    with llm_server(lambda body: good_answer(body["messages"])) as server:
        yield server.url


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """A head that was started as in the image: in the folder of the code, with the image's PYTHONPATH."""
    (path,) = [
        word.removeprefix("PYTHONPATH=")
        for line in (ROOT / "k8s/docker/cpu.Dockerfile").read_text().splitlines()
        if line.startswith("ENV ")
        for word in shlex.split(line)
        if word.startswith("PYTHONPATH=")
    ]
    # The rest as the pods have it (k8s/components/pods/pods.yaml).
    variables = {"PYTHONPATH": path.replace("/app", str(ROOT)), "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
    variables |= {"RAY_worker_niceness": "0"}
    with chdir(ROOT), ray_head(cpus=4, variables=variables) as environment:
        yield environment


@pytest.mark.parametrize("job", RUNNABLE)
def test_entrypoint_runs(head: dict[str, str], llm: str, job: str, tmp_path: Path) -> None:
    assert job in SMALL, f"write a small configuration for {job}"
    (tmp_path / "model").mkdir()
    (tmp_path / f"{job}.yaml").write_text(yaml.safe_dump(SMALL[job](tmp_path, llm)))
    entrypoint = ENTRYPOINTS[job]
    assert f"{MOUNTED}/{job}.yaml" in entrypoint
    command = [str(BIN / "ray"), "job", "submit", "--address", head["RAY_DASHBOARD_ADDRESS"], "--"]
    # KubeRay has a shell split the entrypoint, and sends no working directory.
    command += shlex.split(entrypoint.replace(MOUNTED, str(tmp_path)))
    submitter = os.environ | {name: head[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    done = subprocess.run(command, env=submitter, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "succeeded" in done.stdout


def test_without_the_token_nothing_is_submitted(head: dict[str, str], tmp_path: Path) -> None:
    command = [str(BIN / "ray"), "job", "submit", "--address", head["RAY_DASHBOARD_ADDRESS"], "--", "touch", "here"]
    stranger = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(command, env=stranger, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "submitted successfully" not in done.stdout
