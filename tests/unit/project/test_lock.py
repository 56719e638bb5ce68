"""requirements/cpu.lock belongs to pyproject.toml and requirements/overrides.txt. `make lock` writes it."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEFT_OUT = ["torchvision", "torchaudio", "torchcodec", "llama-cpp-python", "llm-llama-cpp", "llm"]


def requirements(path: Path) -> list[Requirement]:
    lines = path.read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture
def pins(root: Path) -> dict[str, str]:
    lock = requirements(root / "requirements/cpu.lock")
    return {canonicalize_name(pin.name): str(pin.specifier) for pin in lock}


def test_every_declared_dependency_is_pinned_inside_its_range(root: Path, pins: dict[str, str]) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [Requirement(text) for text in project["dependencies"] + extras["cpu"] + extras["dev"]]
    outside = {
        str(requirement): pins.get(canonicalize_name(requirement.name), "not in the lock")
        for requirement in declared
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "==0").removeprefix("=="))
    }
    assert outside == {}


def test_every_pin_is_exact(pins: dict[str, str]) -> None:
    assert [name for name, pin in pins.items() if not pin.startswith("==") or "," in pin] == []


@pytest.mark.parametrize("name", LEFT_OUT)
def test_package_that_breaks_the_cpu_build_is_left_out(pins: dict[str, str], name: str) -> None:
    assert name not in pins


def test_torch_is_pinned_as_the_overrides_name_it(root: Path, pins: dict[str, str]) -> None:
    (torch,) = [line for line in requirements(root / "requirements/overrides.txt") if line.name == "torch"]
    assert pins["torch"] == str(torch.specifier)


def test_no_package_of_a_cuda_build_is_locked(pins: dict[str, str]) -> None:
    assert [name for name in pins if name.startswith(("nvidia-", "cuda-"))] == []
