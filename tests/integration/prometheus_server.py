"""The real Prometheus, of a test's own."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from multiverse.application import free_port

SCRAPE_SECONDS = 1
RATE_INTERVAL = "15s"
"""What Grafana would put in place of ``$__rate_interval`` here, a little more: Ray reports only so often."""


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of its HTTP API. Fails the test on an error."""
        try:
            query = urllib.parse.urlencode(parameters)
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def series(self, expr: str, begin: float, end: float) -> list[dict[str, Any]]:
        """Labels and [seconds, value] pairs of a panel's query over a span of time, everything chosen above it."""
        times = {"$__rate_interval": RATE_INTERVAL, "$__range": f"{end - begin:.0f}s"}
        for name, value in {**times, "$model": ".*", "$deployment": ".*"}.items():
            expr = expr.replace(name, value)
        found: list[dict[str, Any]] = self.get("query_range", query=expr, start=begin, end=end, step=1)["result"]
        return found


@contextmanager
def prometheus(folder: Path, targets: Sequence[str], rules: dict[str, Any]) -> Iterator[Prometheus]:
    """Scrapes ``targets`` every second and evaluates ``rules`` (the ``spec`` of a PrometheusRule)."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "2s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    options = [
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, *options], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.2)
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)
