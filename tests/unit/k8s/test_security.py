"""What every container may not do, and where secrets are."""

import re
from collections.abc import Iterator

import pytest

from tests.unit.k8s.rendered import Object, all_pods, cluster_of, containers, everything, of_kind, quantity

PODS = all_pods()
VOLUMES = {"emptyDir", "configMap", "secret", "projected", "persistentVolumeClaim"}


def every_container() -> Iterator[tuple[str, Object]]:
    """Those of all pods, and the one that KubeRay puts beside a head."""
    for where, pod in PODS:
        for container in containers(pod):
            yield f"{where} {container['name']}", container
    for where, value in of_kind("RayService", "RayJob", "RayCluster"):
        cluster = cluster_of(value)
        assert cluster is not None
        if cluster.get("enableInTreeAutoscaling"):
            yield f"{where} autoscaler", cluster["autoscalerOptions"]


def test_containers_of_all_kinds_are_looked_at() -> None:
    """Three services with 4 groups, twelve jobs with a submitter, three clusters; an autoscaler beside each service."""
    assert len(list(every_container())) == (3 + 4) + 12 * 3 + 3 * 2 + 3


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("allowPrivilegeEscalation", False),
        ("readOnlyRootFilesystem", True),
        ("runAsNonRoot", True),
        ("capabilities", {"drop": ["ALL"]}),
        ("privileged", None),
    ],
)
def test_security_setting_of_every_container(setting: str, wanted: object) -> None:
    found = {where: container["securityContext"].get(setting) for where, container in every_container()}
    assert {where: value for where, value in found.items() if value != wanted} == {}


def test_every_pod_runs_as_a_user_with_the_runtimes_seccomp_profile() -> None:
    for where, pod in PODS:
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] == 1000 and context["fsGroup"] == 1000, where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where


def test_no_pod_reaches_into_its_node() -> None:
    for where, pod in PODS:
        spec = pod["spec"]
        assert not [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)], where
        assert {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}} <= VOLUMES, where
        assert not [port for container in containers(pod) for port in container.get("ports", ()) if "hostPort" in port]


def test_only_the_autoscaler_has_a_token_for_the_api_server() -> None:
    for where, pod in PODS:
        assert pod["spec"]["automountServiceAccountToken"] is False, where
        mounted = [mount["name"] for container in containers(pod) for mount in container["volumeMounts"]]
        assert "api-token" not in mounted, where
    for where, value in of_kind("RayService"):
        mounts = {m["name"]: m["mountPath"] for m in cluster_of(value)["autoscalerOptions"]["volumeMounts"]}  # type: ignore[index]
        assert mounts["api-token"] == "/var/run/secrets/kubernetes.io/serviceaccount", where


def test_namespace_refuses_other_pods() -> None:
    for where, value in of_kind("Namespace"):
        assert value["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted", where


def test_no_secret_is_part_of_the_result() -> None:
    assert of_kind("Secret") == []


def test_variables_that_hold_secrets_come_from_secrets() -> None:
    secret = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")
    plain = [
        f"{where} {variable['name']}"
        for where, container in every_container()
        for variable in container.get("env", ())
        if secret.search(variable["name"]) and "secretKeyRef" not in variable.get("valueFrom", {})
    ]
    assert plain == []


def test_every_ray_cluster_asks_for_the_token_of_the_secret() -> None:
    for where, value in everything():
        if (cluster := cluster_of(value)) is not None:
            assert cluster["authOptions"] == {"mode": "token", "secretName": "multiverse-ray-token"}, where


def test_what_is_written_to_is_a_volume() -> None:
    """The root file system is read-only: the variables that name folders name mounted ones."""
    for where, pod in PODS:
        for container in containers(pod):
            writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
            folders = {v["value"] for v in container["env"] if v["name"] in ("HOME", "MULTIVERSE_HOME")}
            assert "/tmp" in writable and folders <= writable, where


def test_every_container_has_requests_and_limits_and_memory_is_not_overcommitted() -> None:
    for where, container in every_container():
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests["memory"] == limits["memory"], where
        assert 0 < quantity(requests["cpu"]) <= quantity(limits["cpu"]), where
        assert requests.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu"), where


def test_shared_memory_is_bounded_and_inside_the_containers_memory() -> None:
    for where, pod in PODS:
        if where.endswith("submitter"):
            continue
        (ray,) = containers(pod)
        (shm,) = [m["name"] for m in ray["volumeMounts"] if m["mountPath"] == "/dev/shm"]
        (volume,) = [v["emptyDir"] for v in pod["spec"]["volumes"] if v["name"] == shm]
        assert volume["medium"] == "Memory", where
        assert quantity(volume["sizeLimit"]) <= quantity(ray["resources"]["limits"]["memory"]) / 2, where


def test_every_mount_has_its_volume() -> None:
    for where, pod in PODS:
        names = [volume["name"] for volume in pod["spec"]["volumes"]]
        assert len(names) == len(set(names)), where
        assert {m["name"] for container in containers(pod) for m in container["volumeMounts"]} <= set(names), where


def test_ray_containers_have_probes_which_need_no_program_of_the_image() -> None:
    for where, pod in PODS:
        if not where.endswith("submitter"):
            (ray,) = containers(pod)
            assert ray["livenessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}, where
            assert "httpGet" in ray["readinessProbe"], where


def test_workers_of_a_service_are_ready_when_their_proxy_is() -> None:
    for where, pod in PODS:
        if "RayService" in where and "worker" in where:
            assert containers(pod)[0]["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": "serve"}, where
