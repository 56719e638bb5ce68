"""Evaluation against a server that nobody here wrote: vLLM's own, as it is in the lock, with the base model.

It is started by its module: the console script ``vllm`` of the CPU build looks for a package named ``vllm`` and ends.
"""

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from multiverse.application import free_port
from multiverse.evaluation.accuracy.config import EvaluateConfig
from multiverse.evaluation.accuracy.figures import figures
from multiverse.evaluation.accuracy.report import write_report
from multiverse.evaluation.accuracy.run import evaluate
from tests.integration.ray_head import BIN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def vllm_serve(builtin_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its ``base_url``."""
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log"
    options = [
        "--enforce-eager",
        "--max-model-len",
        "1024",
        "--served-model-name",
        "base",
        "--max-num-seqs",
        "16",
        "--dtype",
        "float32",
    ]
    server = [str(BIN / "python"), "-m", "vllm.entrypoints.openai.api_server", "--model", str(builtin_model)]
    command = [*server, "--host", "127.0.0.1", "--port", str(port), *options]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if process.poll() is None:
            below = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            _, alive = psutil.wait_procs([psutil.Process(process.pid), *below], timeout=30)
            for left in alive:
                with suppress(psutil.NoSuchProcess):
                    left.kill()


async def test_the_base_model_answers_freely_and_at_a_budget(vllm_serve: str, tmp_path: Path) -> None:
    given = {
        "model": {"base_url": vllm_serve},
        "suites": [{"name": "generated", "count": 20, "max_tokens": 120}],
        "budgets": [24],
        "answer_tokens": 16,
        "concurrency": 16,
        "out": str(tmp_path),
    }
    found = await evaluate(EvaluateConfig.of(given))
    side = figures(found)["generated"]["sides"]["model"]
    assert (side["answers"], side["failed"], side["parallel"], side["x"]) == (20, 0, 0.0, 1.0)
    assert set(side["finish"]) <= {"stop", "length"}
    assert 10 < side["tokens"] <= 120
    assert 0 <= side["pass@1"]["value"] < 0.5
    records = [record for record in found.records["model"].values() if record.budget == 24]
    forced = [record for record in records if record.forced]
    assert len(forced) > 10
    for record in forced:
        thought, _, answer = record.text.rpartition("\nAnswer:")
        assert thought and "\n" not in answer and record.rule == "answer line"
        assert record.tokens is not None and 24 < record.tokens <= 24 + 16
    report = write_report(found)
    assert report["sides"]["model"]["base_url"] == vllm_serve
    assert "### Budget control, generated" in (tmp_path / "report.md").read_text()
