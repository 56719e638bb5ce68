"""The images' Dockerfiles, as far as they can be checked without building them."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.k8s.rendered import ROOT, all_pods

FILES = sorted((ROOT / "k8s/docker").glob("*.Dockerfile"))
Step = tuple[str, str]


def steps(path: Path) -> Iterator[Step]:
    """Instruction and arguments of each step, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, arguments = line.partition(" ")
        yield instruction, arguments.strip()


def stages(path: Path) -> list[list[Step]]:
    found: list[list[Step]] = []
    for step in steps(path):
        if step[0] == "FROM":
            found.append([])
        found[-1].append(step)
    return found


def variables(stage: list[Step]) -> dict[str, str]:
    return dict(word.split("=", 1) for instruction, text in stage if instruction == "ENV" for word in shlex.split(text))


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_instructions_are_known(dockerfile: Path) -> None:
    known = {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER"}
    assert {instruction for instruction, _ in steps(dockerfile)} <= known


def test_there_are_two_stages_of_exactly_one_pinned_image(dockerfile: Path) -> None:
    bases = [stage[0][1].split(" AS ")[0] for stage in stages(dockerfile)]
    assert len(bases) == 2 and len(set(bases)) == 1
    assert re.search(r":\d+\.\d+\.\d+-[\w-]+$|@sha256:[0-9a-f]{64}$", bases[0])


def test_base_image_has_a_python_that_the_project_takes(dockerfile: Path, root: Path) -> None:
    from packaging.specifiers import SpecifierSet

    wanted = tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"]
    version = re.search(r"python:(\d+\.\d+\.\d+)", stages(dockerfile)[0][0][1])
    assert version is not None and version[1] in SpecifierSet(wanted)


def test_what_is_copied_exists(dockerfile: Path, root: Path) -> None:
    built = "\n".join(f"{instruction} {text}" for instruction, text in stages(dockerfile)[0])
    for stage in stages(dockerfile):
        for instruction, text in stage:
            if instruction == "COPY":
                *sources, _ = [word for word in text.split() if not word.startswith("--")]
                if "--from=build" in text:
                    assert all(source in built for source in sources), text
                else:
                    assert [source for source in sources if not (root / source).exists()] == [], text


def test_files_that_building_the_package_needs_are_there_before(dockerfile: Path, root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    copied = [text.split()[:-1] for instruction, text in stages(dockerfile)[0] if instruction == "COPY"]
    names = {name for group in copied for name in group}
    assert {"pyproject.toml", "platform", project["readme"], *project["license-files"]} <= names


def test_commands_are_shell_that_stops_at_the_first_failure(dockerfile: Path) -> None:
    for instruction, text in steps(dockerfile):
        if instruction == "RUN":
            assert subprocess.run(["sh", "-n", "-c", text], capture_output=True).returncode == 0, text
            assert ";" not in re.sub(r"'[^']*'", "", text) and "|" not in re.sub(r"'[^']*'", "", text), text


def test_package_lists_are_not_left_in_the_image(dockerfile: Path) -> None:
    for instruction, text in steps(dockerfile):
        if instruction == "RUN" and "apt-get" in text:
            assert "--no-install-recommends" in text and text.count("rm -rf /var/lib/apt/lists/*") == 1


def test_image_runs_as_the_user_of_the_pods(dockerfile: Path) -> None:
    users = {pod["spec"]["securityContext"]["runAsUser"] for _, pod in all_pods()}
    last = stages(dockerfile)[-1]
    assert {f"USER {user}:{user}" for user in users} == {f"{i} {text}" for i, text in last if i == "USER"}
    assert last[-1][0] == "USER"


def test_code_lies_where_serve_and_jobs_look_for_it(dockerfile: Path) -> None:
    """Entrypoints say jobs/NAME.py, Serve imports deployments.app, and KubeRay starts Ray in the working directory."""
    last = stages(dockerfile)[-1]
    assert ("WORKDIR", "/app") in last
    assert {("COPY", "deployments /app/deployments"), ("COPY", "jobs /app/jobs")} <= set(last)
    assert variables(last)["PYTHONPATH"] == "/app/platform:/app"
    assert variables(last)["PATH"].startswith("/opt/venv/bin:")


def test_cpu_image_takes_the_lock_alone_and_torchs_cpu_build(root: Path) -> None:
    runs = [text for instruction, text in steps(root / "k8s/docker/cpu.Dockerfile") if instruction == "RUN"]
    installs = [part for text in runs for part in text.split("&&") if "pip install" in part]
    assert len(installs) == 3 and all("--no-deps" in part for part in installs)
    assert "--requirement /app/requirements/cpu.lock" in installs[1]
    (found,) = [match for text in runs if (match := re.match(r'torch="\$\(.+?\)"', text))]
    script = found[0].replace("/app/", f"{root}/") + '; echo "$torch"'
    name = subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+\+cpu\n", name)


def test_gpu_image_takes_its_lock_alone(root: Path) -> None:
    runs = [text for instruction, text in steps(root / "k8s/docker/gpu.Dockerfile") if instruction == "RUN"]
    installs = [part for text in runs for part in text.split("&&") if "pip install" in part]
    assert len(installs) == 2 and all("--no-deps" in part for part in installs)
    assert "--requirement /app/requirements/gpu.lock" in installs[0]


def test_no_image_asks_for_gpus_that_a_pod_did_not_request(dockerfile: Path) -> None:
    """NVIDIA_VISIBLE_DEVICES=all in an image gives every pod all GPUs of its node."""
    assert "NVIDIA_VISIBLE_DEVICES" not in variables(stages(dockerfile)[-1])


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed (it comes with g++)")
def test_libraries_that_vllm_is_linked_to_are_installed(dockerfile: Path) -> None:
    """Those that are in no wheel; its build for the CPU asks for libnuma, and without it no engine starts."""
    package = importlib.util.find_spec("vllm")
    assert package is not None and package.submodule_search_locations
    libraries = [str(path) for path in Path(package.submodule_search_locations[0]).glob("*.so")]
    dynamic = subprocess.run(["readelf", "--dynamic", *libraries], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
    assert "libtorch.so" in needed
    debian = {"libnuma.so.1": "libnuma1"}
    base = r"(ld-linux-x86-64|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+))\.so\.\d+"  # of the image, and with g++
    torchs = r"lib(c10|torch|torch_cpu|torch_python|gomp|iomp5|shm)[\w.-]*"
    outside = {name for name in needed if not re.fullmatch(base, name) and not re.fullmatch(torchs, name)}
    assert outside <= debian.keys()
    installs = " ".join(text for instruction, text in stages(dockerfile)[-1] if instruction == "RUN").split()
    assert {"g++", *debian.values()} <= set(installs)
