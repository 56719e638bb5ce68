"""A Ray head of a test's own, with its dashboard, for the commands ``ray`` and ``serve``."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from multiverse.application import free_port

BIN = Path(sys.executable).parent


@contextmanager
def ray_head(cpus: int, variables: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """Gives the environment that commands need to reach it; ``RAY_DASHBOARD_ADDRESS`` is its dashboard's URL.

    variables: further ones, for the head and all that runs on it. Its control plane asks for a token.
    """
    port, dashboard = free_port(), free_port()
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",  # jobs say `python`
        **(variables or {}),
    }
    # Not pytest's folder: the paths of Ray's sockets may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    log = folder / "log"
    options = [f"--port={port}", f"--dashboard-port={dashboard}", f"--num-cpus={cpus}", f"--temp-dir={folder}"]
    fixed = ["--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
    command = [str(BIN / "ray"), "start", *fixed, *options]
    with log.open("wb") as output:
        head = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    reached = environment | {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    try:
        deadline = time.monotonic() + 120
        jobs = [str(BIN / "ray"), "job", "list", "--address", reached["RAY_DASHBOARD_ADDRESS"]]
        while subprocess.run(jobs, env=reached, capture_output=True).returncode:
            assert head.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(1)
        yield reached
    finally:
        below = psutil.Process(head.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()
        psutil.wait_procs(below, timeout=20)
        shutil.rmtree(folder, ignore_errors=True)
