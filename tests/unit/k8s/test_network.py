"""Which traffic the policies let through: their own selectors, evaluated on the labels that pods have."""

import ipaddress
from typing import Any

import pytest

from tests.unit.k8s.rendered import OVERLAYS, Object, render

# Labels that KubeRay (ray-operator/controllers/ray/common/pod.go) and Istio give, and the namespaces pods are in.
LABELS: dict[str, dict[str, str]] = {
    "head": {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head", "ray.io/serve": "false"},
    "worker": {"ray.io/is-ray-node": "yes", "ray.io/node-type": "worker", "ray.io/serve": "true"},
    "job head": {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head"},
    "job worker": {"ray.io/is-ray-node": "yes", "ray.io/node-type": "worker"},
    "submitter": {"app.kubernetes.io/component": "submitter"},
    "gateway": {"gateway.networking.k8s.io/gateway-name": "multiverse-gateway"},
    "tls": {"gateway.networking.k8s.io/gateway-name": "multiverse-tls"},
    "operator": {"app.kubernetes.io/name": "kuberay-operator"},
    "prometheus": {"app.kubernetes.io/name": "prometheus"},
    "dns": {"k8s-app": "kube-dns"},
    "istiod": {"app": "istiod"},
    "stranger": {"app": "stranger"},
    "stranger here": {"app": "stranger"},
}
NAMESPACE = {
    "tls": "istio-ingress",
    "operator": "kuberay-system",
    "prometheus": "monitoring",
    "dns": "kube-system",
    "istiod": "istio-system",
    "stranger": "default",
}
OURS = "multiverse"


def selects(selector: Object, labels: dict[str, str]) -> bool:
    exists = [rule["key"] for rule in selector.get("matchExpressions", ()) if rule["operator"] == "Exists"]
    assert len(exists) == len(selector.get("matchExpressions", ())), "an operator this test does not know"
    return selector.get("matchLabels", {}).items() <= labels.items() and all(key in labels for key in exists)


def meets(peer: Object, other: str) -> bool:
    if "ipBlock" in peer:  # of the world outside only, where other is an address
        try:
            address = ipaddress.ip_address(other)
        except ValueError:
            return False
        block = peer["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(part) for part in block.get("except", ()))
    if other not in LABELS:
        return False
    namespace = NAMESPACE.get(other, OURS)
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}):
            return False
    elif namespace != OURS:
        return False
    return selects(peer.get("podSelector", {}), LABELS[other])


def allows(policies: list[Object], direction: str, pod: str, other: str, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies of ``pod`` let traffic through; ``other``: a pod above, or an address outside."""
    if NAMESPACE.get(pod, OURS) != OURS:
        return True  # not ours to say
    key = {"Ingress": "from", "Egress": "to"}[direction]
    chosen = [p["spec"] for p in policies if direction in p["spec"]["policyTypes"]]
    chosen = [spec for spec in chosen if selects(spec["podSelector"], LABELS[pod])]
    if not chosen:
        return True
    rules: list[Any] = [rule for spec in chosen for rule in spec.get(direction.lower(), ())]
    return any(
        (key not in rule or any(meets(peer, other) for peer in rule[key]))
        and ("ports" not in rule or {"port": port, "protocol": protocol} in rule["ports"])
        for rule in rules
    )


def passes(overlay: str, source: str, target: str, port: int, protocol: str = "TCP") -> bool:
    policies = [value for value in render(overlay) if value["kind"] == "NetworkPolicy"]
    leaves = source not in LABELS or allows(policies, "Egress", source, target, port, protocol)
    return leaves and (target not in LABELS or allows(policies, "Ingress", target, source, port, protocol))


NEEDED = [
    ("worker", "head", 6379),
    ("head", "worker", 10002),
    ("job worker", "job worker", 40000),
    ("operator", "head", 8265),
    ("operator", "head", 8000),
    ("operator", "job head", 8265),
    ("submitter", "job head", 8265),
    ("stranger", "worker", 8000),
    ("203.0.113.7", "worker", 8000),
    ("tls", "gateway", 80),
    ("gateway", "worker", 8000),
    ("gateway", "head", 8000),
    ("gateway", "istiod", 15012),
    ("worker", "52.216.0.1", 443),
    ("worker", "169.254.20.10", 53),
    ("head", "10.96.0.1", 443),
    ("head", "10.0.0.5", 6443),
]
REFUSED = [
    ("stranger", "head", 8265),
    ("stranger here", "head", 8265),
    ("stranger here", "worker", 10002),
    ("203.0.113.7", "head", 6379),
    ("203.0.113.7", "gateway", 80),
    ("stranger", "gateway", 80),
    ("stranger here", "gateway", 80),
    ("worker", "prometheus", 4318),
    ("stranger", "job head", 8000),
    ("stranger", "worker", 8080),
    ("submitter", "job head", 6379),
    ("submitter", "52.216.0.1", 443),
    ("worker", "169.254.169.254", 80),
    ("worker", "169.254.169.254", 443),
    ("worker", "169.254.169.254", 53),
    ("worker", "stranger", 5432),
    ("worker", "52.216.0.1", 80),
    ("worker", "10.0.0.5", 6443),
    ("stranger here", "52.216.0.1", 443),
]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize(("source", "target", "port"), NEEDED, ids=lambda value: str(value))
def test_needed_traffic_passes(overlay: str, source: str, target: str, port: int) -> None:
    assert passes(overlay, source, target, port)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize(("source", "target", "port"), REFUSED, ids=lambda value: str(value))
def test_other_traffic_does_not(overlay: str, source: str, target: str, port: int) -> None:
    assert not passes(overlay, source, target, port)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("pod", ["head", "worker", "submitter", "gateway"])
def test_all_pods_ask_the_clusters_dns(overlay: str, pod: str) -> None:
    assert passes(overlay, pod, "dns", 53, "UDP") and passes(overlay, pod, "dns", 53, "TCP")


@pytest.mark.parametrize(("overlay", "port"), [(o, p) for o in ("gpu", "gpu-multi") for p in (8080, 44217, 44227)])
def test_prometheus_scrapes(overlay: str, port: int) -> None:
    assert passes(overlay, "prometheus", "head", port)
    assert not passes(overlay, "prometheus", "head", 8265)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_that_no_policy_names_are_cut_off(overlay: str) -> None:
    policies = [value for value in render(overlay) if value["kind"] == "NetworkPolicy"]
    (deny,) = [p["spec"] for p in policies if p["metadata"]["name"] == "default-deny"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_disruption_budgets_cover_serving_pods_alone(overlay: str) -> None:
    budgets = [value["spec"] for value in render(overlay) if value["kind"] == "PodDisruptionBudget"]
    covered = {p: [b["maxUnavailable"] for b in budgets if selects(b["selector"], LABELS[p])] for p in LABELS}
    assert {pod: found for pod, found in covered.items() if found} == {"head": [0], "worker": [1]}
