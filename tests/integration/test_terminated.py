"""A command that is told to end takes along all that it started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_sigterm_ends_a_generation_and_its_engine(root: Path, builtin_model: Path) -> None:
    command = [sys.executable, "-c", "from multiverse.cli import app; app()", "generate", "Tell a very long story."]
    before = set(Path("/dev/shm").iterdir())
    process = subprocess.Popen(
        [*command, "--model", str(builtin_model), "--max-tokens", "4000"],
        env=os.environ | {"PYTHONPATH": str(root / "platform"), "VLLM_LOGGING_LEVEL": "ERROR"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        engine = workers(process.pid, deadline=time.monotonic() + 120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 128 + signal.SIGTERM
    finally:
        process.kill()
    gone, alive = psutil.wait_procs(engine, timeout=10)
    assert (len(gone), alive) == (len(engine), [])
    assert set(Path("/dev/shm").iterdir()) <= before


def workers(pid: int, deadline: float) -> list[psutil.Process]:
    """vLLM's processes below ``pid``, as soon as its worker is there."""
    while time.monotonic() < deadline:
        found = [one for one in psutil.Process(pid).children(recursive=True) if one.name().startswith("VLLM")]
        if any("Worker" in one.name() for one in found):
            time.sleep(10)  # weights, cache
            return found
        time.sleep(0.5)
    raise AssertionError("the engine did not start")
