"""How many stage calls a second the job keeps up."""

import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.integration.llm_server import llm_server
from tests.integration.ray_head import BIN
from tests.unit.curation.scripted import good_answer

ROWS = 1000
LEAST = 55


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_64_calls_in_flight_at_1_s_each_make_55_a_second(shared: Path, tmp_path: Path) -> None:
    with llm_server(lambda body: good_answer(body["messages"]), latency=1.0) as server:
        config = {
            "source": str(shared / "data" / "eval" / "gsm8k_train.jsonl"),
            "out": str(tmp_path / "out"),
            "columns": {"chain": "answer", "answer_after": "####"},
            "selection": {"rows": ROWS},
            "stages": {"min_saving": 1},
            "llm": {"base_url": server.url, "model": "m", "concurrency": 64, "cache_dir": str(tmp_path / "cache")},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        began = time.monotonic()
        command = [str(BIN / "multiverse"), "curate", "--config", str(path), "--json"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=380)
        assert run.returncode == 0, run.stderr[-3000:]
        seconds = time.monotonic() - began
    summary = json.loads(run.stdout.splitlines()[-1])
    assert summary["curated"] == ROWS
    times = sorted(request.at for request in server.requests)
    assert summary["llm"]["total"]["made"] == len(times) > 2 * ROWS
    # From the third second on, until rows run out: in the last seconds there are fewer than 64 left.
    first, last = times[128], times[-192]
    rate = (len(times) - 320) / (last - first)
    print(f"{rate:.1f} calls/s over {last - first:.0f} s; {len(times)} calls, {seconds:.0f} s with the start of Ray")
    assert last - first > 20
    assert rate >= LEAST
