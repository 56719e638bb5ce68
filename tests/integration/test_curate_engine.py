"""`multiverse curate` with a model of its worker's own: rows come out, and no process stays behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

MARK = "MULTIVERSE_TEST_RUN"
MODEL = {"model": "builtin:smollm2-135m", "max_model_len": 2048, "kv_cache_gib": 0.5, "enforce_eager": True}
CHAINS = [
    "Anna has 3 apples. She buys 4 more. So she has 7.",
    "A box holds 5 pens. Two boxes hold 10 pens. He needs 12. So 2 are missing.",
]


def of_run(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_every_process_ends_with_the_run(tmp_path: Path) -> None:
    rows = [{"id": str(at), "question": "How many?", "chain": chain, "answer": ""} for at, chain in enumerate(CHAINS)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = {
        "source": str(tmp_path / "in.jsonl"),
        "out": str(tmp_path / "out"),
        "stages": {"tries": 4, "max_tokens": 300, "min_saving": 1},
        "llm": MODEL | {"kind": "engine", "temperature": 0.8},
        "independence": MODEL,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    mark = uuid4().hex
    command = [sys.executable, "-m", "multiverse.cli", "curate", "--config", str(tmp_path / "config.yaml"), "--json"]
    try:
        run = subprocess.run(
            command, env=os.environ | {MARK: mark}, capture_output=True, text=True, timeout=300, check=False
        )
        assert run.returncode == 0, run.stderr[-2000:]
        result = json.loads(run.stdout.splitlines()[-1])
        assert (result["rows"], result["curated"] + result["dead"]) == (2, 2)
        _, left = psutil.wait_procs(of_run(mark), timeout=30)
        assert not left
    finally:
        for process in of_run(mark):
            process.kill()
