"""Every object against its kind's schema, unknown fields refused."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.unit.k8s.rendered import KUSTOMIZATIONS, ROOT, Object, everything, of_kind, render

CRDS = {
    "RayService": "ray.io_rayservices",
    "RayJob": "ray.io_rayjobs",
    "RayCluster": "ray.io_rayclusters",
    "PodMonitor": "monitoring.coreos.com_podmonitors",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules",
    "LocalQueue": "kueue.x-k8s.io_localqueues",
    "ClusterQueue": "kueue.x-k8s.io_clusterqueues",
    "ResourceFlavor": "kueue.x-k8s.io_resourceflavors",
}
# No schema of the Gateway API is at hand.
UNCHECKED = {"Gateway", "HTTPRoute"}


def strict(schema: Any) -> Any:
    """With unknown fields refused, where the schema lists the known ones and does not ask to keep others."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict):
        copy["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            copy["additionalProperties"] = False
    return copy


@cache
def validator(crds: Path, kind: str, version: str) -> Any:
    definition = yaml.load((crds / f"{CRDS[kind]}.yaml").read_text(), yaml.CSafeLoader)
    (schema,) = [
        served["schema"]["openAPIV3Schema"]
        for served in definition["spec"]["versions"]
        if served["name"] == version and served["served"]
    ]
    return jsonschema.Draft202012Validator(strict(schema))


def complaints(crds: Path, value: Object) -> list[str]:
    found = validator(crds, value["kind"], value["apiVersion"].partition("/")[2])
    return [f"{error.json_path}: {error.message[:200]}" for error in found.iter_errors(value)]


def examples() -> list[tuple[str, Object]]:
    files = sorted((ROOT / "k8s/examples").glob("*.yaml"))
    return [(f"{file.name} {v['kind']}", v) for file in files for v in yaml.safe_load_all(file.read_text())]


@pytest.mark.parametrize("kustomization", KUSTOMIZATIONS)
def test_custom_objects_pass_their_crds(shared: Path, kustomization: str) -> None:
    objects = [value for value in render(kustomization) if value["kind"] in CRDS]
    assert objects
    named = {f"{value['kind']} {value['metadata']['name']}": complaints(shared / "crds", value) for value in objects}
    assert {name: found for name, found in named.items() if found} == {}


def test_custom_objects_of_the_examples_pass_their_crds(shared: Path) -> None:
    objects = [(where, value) for where, value in examples() if value["kind"] in CRDS]
    assert len(objects) == 3
    assert {where: found for where, value in objects if (found := complaints(shared / "crds", value))} == {}


def test_unknown_field_deep_in_a_pod_is_refused(shared: Path) -> None:
    (service,) = [value for value in render("cpu") if value["kind"] == "RayService"]
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    (complaint,) = complaints(shared / "crds", service)
    assert complaint.startswith("$.spec.rayClusterConfig.headGroupSpec.template.spec.containers[0]: ")
    assert "'readOnly' was unexpected" in complaint


def test_kinds_of_kubernetes_itself_pass_their_schemas() -> None:
    checked = 0
    for _, value in [*everything(), *examples()]:
        if value["kind"] not in CRDS.keys() | UNCHECKED:
            kubernetes_validate.validate(value, "1.37", strict=True)
            checked += 1
    assert checked > 40


def test_unknown_field_of_a_kind_of_kubernetes_is_refused() -> None:
    (_, policy), *_ = of_kind("NetworkPolicy")
    policy["spec"]["ingres"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(policy, "1.37", strict=True)


def test_namespaced_objects_are_in_the_namespace() -> None:
    kinds = {where: v["metadata"].get("namespace") for where, v in everything() if v["kind"] != "Namespace"}
    assert {where: namespace for where, namespace in kinds.items() if namespace != "multiverse"} == {}
