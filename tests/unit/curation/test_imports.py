"""Curation's core runs in any worker: it needs no model, no engine and no cluster."""

import subprocess
import sys
from pathlib import Path

MODULES = ["checks.distance", "checks.figures", "checks.findings", "checks.overlap"]
MODULES += ["stages.anchored", "stages.rewrite"]
HEAVY = {"torch", "transformers", "tokenizers", "vllm", "ray", "openai", "httpx"}


def test_the_core_imports_nothing_heavy(root: Path) -> None:
    code = "import sys; " + "; ".join(f"import multiverse.curation.{module}" for module in MODULES)
    code += "; print(*{name.partition('.')[0] for name in sys.modules})"
    environment = {"PYTHONPATH": str(root / "platform")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert HEAVY & set(run.stdout.split()) == set()
