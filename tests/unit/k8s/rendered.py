"""The objects that ``kubectl kustomize`` makes of k8s/, and the Ray clusters, pods and containers in them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
OVERLAYS = ("cpu", "gpu", "gpu-multi")
KUSTOMIZATIONS = tuple(f"{overlay}{part}" for overlay in OVERLAYS for part in ("", "/jobs", "/development"))
Object = dict[str, Any]

CLUSTER_FIELD = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec", "RayCluster": None}
_UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@cache
def _text(folder: Path) -> str:
    command = [str(Path(sys.executable).parent / "kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "# Warning" not in done.stderr, done.stderr
    return done.stdout


def render(kustomization: str) -> list[Object]:
    """All objects of k8s/overlays/``kustomization``; a copy, to be changed at will."""
    return render_folder(ROOT / "k8s/overlays" / kustomization)


def render_folder(folder: Path) -> list[Object]:
    """All objects of the kustomization in ``folder``."""
    return list(yaml.load_all(_text(folder), yaml.CSafeLoader))


def everything() -> Iterator[tuple[str, Object]]:
    """Every object of every overlay, with a name for messages."""
    for kustomization in KUSTOMIZATIONS:
        for value in render(kustomization):
            yield f"{kustomization} {value['kind']} {value['metadata']['name']}", value


def of_kind(*kinds: str) -> list[tuple[str, Object]]:
    return [(where, value) for where, value in everything() if value["kind"] in kinds]


def cluster_of(value: Object) -> Object | None:
    """The Ray cluster in a Ray object; None in another one."""
    if value["kind"] not in CLUSTER_FIELD:
        return None
    field = CLUSTER_FIELD[value["kind"]]
    cluster: Object = value["spec"] if field is None else value["spec"][field]
    return cluster


def pods(value: Object) -> Iterator[tuple[str, Object]]:
    """Every pod template of an object: ``head``, ``worker GROUP`` or ``submitter``."""
    cluster = cluster_of(value)
    if cluster is None:
        return
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield f"worker {group['groupName']}", group["template"]
    if value["kind"] == "RayJob":
        yield "submitter", value["spec"]["submitterPodTemplate"]


def all_pods() -> list[tuple[str, Object]]:
    """Every pod template, with a name for messages."""
    return [(f"{where} {which}", pod) for where, value in everything() for which, pod in pods(value)]


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]


def serve_config(value: Object) -> Object:
    config: Object = yaml.safe_load(value["spec"]["serveConfigV2"])
    return config


def quantity(text: str | int) -> float:
    """Kubernetes' quantities, in CPUs or bytes."""
    match = re.fullmatch(r"([0-9.]+)(\w*)", str(text))
    assert match, text
    return float(match[1]) * _UNITS[match[2]]
