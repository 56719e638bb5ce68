"""The commands of docs/tutorial.md, as they stand there, in their order."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from multiverse.application import free_port
from tests.integration.ray_head import BIN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RUN = Path("runs/tutorial")


def commands(root: Path, port: int) -> list[str]:
    """The code blocks, with a free port in place of the one that is named."""
    text = (root / "docs/tutorial.md").read_text(encoding="utf-8")
    return [block.replace("8000", str(port)) for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)]


def bash(block: str, folder: Path, environment: dict[str, str], output: int | IO[bytes]) -> "subprocess.Popen[bytes]":
    command = ["bash", "-euo", "pipefail", "-c", block]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def run(block: str, folder: Path, environment: dict[str, str]) -> str:
    """What the block prints."""
    process = bash(block, folder, environment, subprocess.PIPE)
    output = process.communicate()[0].decode(errors="replace")
    assert process.returncode == 0, f"{block}\n{output[-4000:]}"
    return output


@contextmanager
def served(block: str, folder: Path, environment: dict[str, str], port: int) -> Iterator[None]:
    """While the block's last command runs."""
    log = folder / "serve.log"
    with log.open("wb") as output:
        server = bash(block.replace("\nmultiverse", "\nexec multiverse"), folder, environment, output)
    try:
        deadline = time.monotonic() + 240
        while True:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(1)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def test_chains_are_curated_trained_on_served_and_asked(root: Path, tmp_path: Path) -> None:
    port = free_port()
    chains, curate, card, train, serve, auto, force = commands(root, port)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "RAY_AUTH_TOKEN": "0" * 64}
    environment |= {"PYTHONPATH": os.pathsep.join([str(root / "platform"), str(root)])}
    for block in (chains, curate):
        run(block, tmp_path, environment)
    assert "yield" in run(card, tmp_path, environment).lower()
    rows = [json.loads(line) for part in (tmp_path / RUN / "curated/jsonl").iterdir() for line in part.open()]
    dead = (tmp_path / RUN / "curated/dead-letters.jsonl").read_text().splitlines()
    assert len(rows) + len(dead) == 12
    assert rows
    run(train, tmp_path, environment)
    with served(serve, tmp_path, environment, port):
        decided, forced = (json.loads(run(block, tmp_path, environment)) for block in (auto, force))
    assert [block["width"] for block in decided["parallel"]["blocks"]] == [3]
    assert "10" in decided["choices"][0]["message"]["content"]
    assert [block["width"] for block in forced["parallel"]["blocks"]] == [3]
