"""The structure of text needs nothing but numpy: routers and commands that must start at once import it."""

import subprocess
import sys
from pathlib import Path

import pytest

MODULES = ["figures", "flatten", "grammar", "layout", "tags", "tracker"]


def test_all_modules_are_looked_at(root: Path) -> None:
    files = (root / "platform" / "multiverse" / "structure").glob("[a-z]*.py")
    assert sorted(file.stem for file in files) == MODULES


@pytest.mark.parametrize("heavy", ["torch", "transformers", "tokenizers", "vllm", "ray", "pydantic"])
def test_structure_imports_nothing_heavy(imported: set[str], heavy: str) -> None:
    assert heavy not in imported


@pytest.fixture(scope="module")
def imported(root: Path) -> set[str]:
    """Top-level modules that are there once all of the package is imported."""
    code = "import sys; " + "; ".join(f"import multiverse.structure.{module}" for module in MODULES)
    code += "; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(root / "platform")},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())
