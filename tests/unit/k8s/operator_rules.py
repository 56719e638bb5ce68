"""What KubeRay 1.7 refuses beyond its CRDs' schemas (ray-operator/controllers/ray/utils/validation.go).

Its feature gates are taken to be at their defaults.

Where the operator stops at the first fault, `faults` lists all.
"""

import re
from typing import Any

from tests.unit.k8s.rendered import Object, cluster_of

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
# The longest name of a service made of it has 63 characters; jobs and services append 6 for their cluster's.
_LONGEST = {"RayCluster": 53, "RayJob": 47, "RayService": 47}
_RESOURCE_PARAMS = ("num-cpus", "num-gpus", "memory", "resources")


def faults(value: Object) -> list[str]:
    """Why the operator would refuse a RayCluster, RayJob or RayService."""
    kind, name, spec = value["kind"], value["metadata"]["name"], value["spec"]
    found = []
    if not _DNS_1035.fullmatch(name):
        found.append("name is no DNS-1035 label")
    if len(name) > _LONGEST[kind]:
        found.append(f"name is longer than {_LONGEST[kind]} characters")
    cluster = cluster_of(value)
    assert cluster is not None
    found += _cluster(cluster)
    if kind != "RayCluster" and cluster.get("authOptions", {}).get("enableK8sTokenAuth"):
        found.append(f"enableK8sTokenAuth in a {kind}")
    if kind == "RayCluster" and spec.get("upgradeStrategy", {}).get("type") not in (None, "Recreate", "None"):
        found.append("upgradeStrategy of a RayCluster")
    return found + {"RayCluster": _nothing, "RayJob": _job, "RayService": _service}[kind](spec, cluster)


def _nothing(spec: Object, cluster: Object) -> list[str]:
    return []


def _cluster(cluster: Object) -> list[str]:
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    autoscaling = cluster.get("enableInTreeAutoscaling", False)
    v2 = autoscaling and cluster.get("autoscalerOptions", {}).get("version") == "v2"
    found = []
    for name, group in [("head", head), *((group["groupName"], group) for group in workers)]:
        pod, params = group["template"]["spec"], group["rayStartParams"]
        if not pod["containers"]:
            found.append(f"{name}: no container")
        if group.get("resources") and any(params.get(key) for key in _RESOURCE_PARAMS):
            found.append(f"{name}: resources both in rayStartParams and in resources")
        if "labels" in params:
            found.append(f"{name}: labels in rayStartParams")
        if v2 and pod.get("restartPolicy", "Never") != "Never":
            found.append(f"{name}: restartPolicy with autoscaler v2")
    for group in workers:
        found += _workers(group, autoscaling, v2, cluster.get("rayVersion", ""))
    variables = {
        variable["name"]: variable.get("value") for variable in head["template"]["spec"]["containers"][0]["env"]
    }
    if variables.get("RAY_enable_autoscaler_v2") in ("1", "true") and not autoscaling:
        found.append("RAY_enable_autoscaler_v2 without autoscaling")
    if "RAY_REDIS_ADDRESS" in variables and "gcsFaultToleranceOptions" not in cluster:
        found.append("RAY_REDIS_ADDRESS without gcsFaultToleranceOptions")
    auth = cluster.get("authOptions", {})
    if auth.get("mode") == "token" and _version(cluster.get("rayVersion", "")) < (2, 52):
        found.append("token authentication before Ray 2.52")
    for field in ("networkPolicy", "tlsOptions", "historyServerOptions"):
        if field in cluster:
            found.append(f"{field} is behind a gate that is off")
    return found


def _workers(group: Object, autoscaling: bool, v2: bool, ray: str) -> list[str]:
    name, least, most = group["groupName"], group.get("minReplicas"), group.get("maxReplicas")
    found = []
    if not autoscaling and (least is None or most is None):
        found.append(f"{name}: minReplicas and maxReplicas are both needed without autoscaling")
    if least is not None and most is not None and not 0 <= least <= most:
        found.append(f"{name}: minReplicas above maxReplicas, or below 0")
    if group.get("suspend"):
        found.append(f"{name}: suspended")
    if group.get("priority") and (not v2 or _version(ray) < (2, 56)):
        found.append(f"{name}: priority without autoscaler v2 and Ray 2.56")
    if "idleTimeoutSeconds" in group and not v2:
        found.append(f"{name}: idleTimeoutSeconds without autoscaler v2")
    return found


def _job(spec: Object, cluster: Object) -> list[str]:
    found = []
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        found.append("ttlSecondsAfterFinished without shutdownAfterJobFinishes")
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        found.append("suspend without shutdownAfterJobFinishes")
    if spec.get("submissionMode") == "SidecarMode" and "submitterPodTemplate" in spec:
        found.append("submitterPodTemplate in SidecarMode")
    if spec.get("submissionMode") == "InteractiveMode" and spec.get("backoffLimit", 0) > 0:
        found.append("backoffLimit in InteractiveMode")
    if spec.get("backoffLimit", 0) < 0 or spec.get("activeDeadlineSeconds", 1) <= 0:
        found.append("backoffLimit below 0, or activeDeadlineSeconds not above it")
    return found


def _service(spec: Object, cluster: Object) -> list[str]:
    found = []
    if cluster["headGroupSpec"].get("headService", {}).get("metadata", {}).get("name"):
        found.append("headService has a name")
    upgrade: dict[str, Any] = spec.get("upgradeStrategy", {})
    if upgrade.get("type") not in (None, "None", "NewCluster", "NewClusterWithIncrementalUpgrade"):
        found.append("unknown upgrade strategy")
    if upgrade.get("type") == "NewClusterWithIncrementalUpgrade":
        options = upgrade.get("clusterUpgradeOptions")
        if not cluster.get("enableInTreeAutoscaling"):
            found.append("incremental upgrade without autoscaling")
        if options is None:
            return [*found, "incremental upgrade without options"]
        if not 0 <= options["stepSizePercent"] <= options.get("maxSurgePercent", 100) <= 100:
            found.append("stepSizePercent above maxSurgePercent, or either outside 0 to 100")
        if options["intervalSeconds"] <= 0 or not options["gatewayClassName"]:
            found.append("incremental upgrade without interval or gateway class")
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
