"""KubeRay's operator takes every Ray object, and the rules here would tell if it did not."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.k8s.operator_rules import faults
from tests.unit.k8s.rendered import CLUSTER_FIELD, Object, cluster_of, of_kind, render


def test_every_ray_object_is_accepted() -> None:
    objects = of_kind(*CLUSTER_FIELD)
    assert len(objects) == 3 * (1 + 4 + 1)
    assert {where: found for where, value in objects if (found := faults(value))} == {}


def changed(kustomization: str, kind: str, change: Callable[[Object, Object], Any]) -> list[str]:
    """The faults of an accepted object after ``change`` of it or of its cluster."""
    value = next(value for value in render(kustomization) if value["kind"] == kind)
    cluster = cluster_of(value)
    assert cluster is not None
    assert faults(value) == []
    change(value, cluster)
    return faults(value)


CASES: list[tuple[str, str, Callable[[Object, Object], Any], str]] = [
    ("cpu", "RayService", lambda o, c: o["metadata"].update(name="7b"), "name is no DNS-1035 label"),
    ("cpu/jobs", "RayJob", lambda o, c: o["metadata"].update(name="a" * 48), "name is longer than 47 characters"),
    (
        "cpu",
        "RayService",
        lambda o, c: c["headGroupSpec"].update(resources={"cpu": "1"}),
        "head: resources both in rayStartParams and in resources",
    ),
    (
        "gpu",
        "RayService",
        lambda o, c: c["workerGroupSpecs"][0].update(minReplicas=5),
        "reserved: minReplicas above maxReplicas, or below 0",
    ),
    (
        "cpu/jobs",
        "RayJob",
        lambda o, c: c["workerGroupSpecs"][0].pop("maxReplicas"),
        "workers: minReplicas and maxReplicas are both needed without autoscaling",
    ),
    (
        "gpu",
        "RayService",
        lambda o, c: c["autoscalerOptions"].update(version="v1"),
        "reserved: priority without autoscaler v2 and Ray 2.56",
    ),
    (
        "cpu",
        "RayService",
        lambda o, c: c["workerGroupSpecs"][0]["template"]["spec"].update(restartPolicy="Always"),
        "engines: restartPolicy with autoscaler v2",
    ),
    (
        "cpu/development",
        "RayCluster",
        lambda o, c: c.update(rayVersion="2.51.0"),
        "token authentication before Ray 2.52",
    ),
    (
        "cpu/jobs",
        "RayJob",
        lambda o, c: c["authOptions"].update(enableK8sTokenAuth=True),
        "enableK8sTokenAuth in a RayJob",
    ),
    ("cpu", "RayService", lambda o, c: c.update(networkPolicy={}), "networkPolicy is behind a gate that is off"),
    (
        "cpu/jobs",
        "RayJob",
        lambda o, c: o["spec"].update(shutdownAfterJobFinishes=False),
        "ttlSecondsAfterFinished without shutdownAfterJobFinishes",
    ),
    (
        "cpu/jobs",
        "RayJob",
        lambda o, c: o["spec"].update(submissionMode="SidecarMode"),
        "submitterPodTemplate in SidecarMode",
    ),
    (
        "gpu",
        "RayService",
        lambda o, c: o["spec"]["upgradeStrategy"]["clusterUpgradeOptions"].update(stepSizePercent=60),
        "stepSizePercent above maxSurgePercent, or either outside 0 to 100",
    ),
    (
        "gpu-multi",
        "RayService",
        lambda o, c: o["spec"]["upgradeStrategy"].pop("clusterUpgradeOptions"),
        "incremental upgrade without options",
    ),
]


@pytest.mark.parametrize(("kustomization", "kind", "change", "fault"), CASES, ids=[case[3] for case in CASES])
def test_refused(kustomization: str, kind: str, change: Callable[[Object, Object], Any], fault: str) -> None:
    assert changed(kustomization, kind, change) == [fault]


def test_incremental_upgrade_without_autoscaling_is_refused() -> None:
    found = changed("gpu-multi", "RayService", lambda o, c: c.update(enableInTreeAutoscaling=False))
    assert "incremental upgrade without autoscaling" in found


@pytest.mark.parametrize("overlay", ["gpu", "gpu-multi"])
def test_upgrades_are_incremental_where_there_is_a_gateway(overlay: str) -> None:
    (service,) = [value for value in render(overlay) if value["kind"] == "RayService"]
    assert service["spec"]["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade"


def test_jobs_are_as_kueue_wants_them() -> None:
    """A queue's label, a cluster that ends with the job, no autoscaler, at most 17 groups of workers."""
    for where, value in of_kind("RayJob", "RayCluster"):
        cluster = cluster_of(value)
        assert cluster is not None
        assert value["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "multiverse", where
        assert not cluster.get("enableInTreeAutoscaling") and len(cluster["workerGroupSpecs"]) <= 17, where
        assert value["kind"] == "RayCluster" or value["spec"]["shutdownAfterJobFinishes"], where
