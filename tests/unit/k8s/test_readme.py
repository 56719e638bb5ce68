"""k8s/README.md names what is there, and its request is one that the server of step 4 takes."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from multiverse.config import AppConfig
from multiverse.serving.api.schema import ChatBody
from multiverse.training.config import TrainConfig
from tests.unit.k8s.rendered import (
    OVERLAYS,
    ROOT,
    containers,
    everything,
    pods,
    quantity,
    render,
    render_folder,
    serve_config,
)

TEXT = (ROOT / "k8s/README.md").read_text()
COMMANDS = TEXT.replace("\\\n", " ")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:-[kf]|--file) (k8s/\S+?)[`,\s]", COMMANDS))))
def test_path_in_a_command_exists(root: Path, path: str) -> None:
    found = root / path
    assert (found / "kustomization.yaml").is_file() if found.is_dir() else found.is_file()


def test_files_and_folders_named_below_k8s_exist(root: Path) -> None:
    names = re.findall(r"`((?:base|components|examples|overlays|docker)(?:/[\w.-]+)*)/?`", TEXT)
    assert len(names) > 10
    assert [name for name in names if "..." not in name and not (root / "k8s" / name).exists()] == []


def test_request_is_accepted_and_names_the_model_that_is_served() -> None:
    _, _, rest = TEXT.partition("-d '")
    body = ChatBody.model_validate(json.loads(rest.partition("}'")[0] + "}"))
    (service,) = [value for value in render("cpu") if value["kind"] == "RayService"]
    assert body.model == AppConfig.of(serve_config(service)["applications"][0]["args"]).name
    assert body.parallel.mode == "force"


def test_request_on_gpus_names_the_models_that_are_served() -> None:
    _, _, rest = TEXT.partition("`served_name`, ")
    named = re.findall(r"`([^`]+)`", rest.partition(", as `model`")[0])
    assert named == [
        AppConfig.of(serve_config(value)["applications"][0]["args"]).name
        for overlay in ("gpu", "gpu-multi")
        for value in render(overlay)
        if value["kind"] == "RayService"
    ]


def test_model_that_is_uploaded_is_the_one_that_is_served_and_trained() -> None:
    (target,) = re.findall(r"aws s3 cp --recursive \S+ (\S+)", COMMANDS)
    (service,) = [value for value in render("gpu") if value["kind"] == "RayService"]
    (jobs,) = [value for value in render("gpu/jobs") if value["kind"] == "ConfigMap"]
    assert target == AppConfig.of(serve_config(service)["applications"][0]["args"]).model
    assert target == yaml.safe_load(jobs["data"]["train.yaml"])["model"]


def test_configuration_of_the_development_command_reads_what_is_there(root: Path) -> None:
    """Rows that a command made on the volume before, and a model of the overlay's image."""
    (path,) = re.findall(r"--config (\S+)", COMMANDS)
    config = TrainConfig.load(root / path)
    assert f"multiverse tasks {config.data.rows} " in COMMANDS
    assert config.model.startswith("builtin:") and "overlays/cpu/development" in COMMANDS


def test_reports_are_where_evaluation_writes_them() -> None:
    for overlay in OVERLAYS:
        (jobs,) = [value for value in render(f"{overlay}/jobs") if value["kind"] == "ConfigMap"]
        out = yaml.safe_load(jobs["data"]["evaluate.yaml"])["out"]
        assert f"`{out}`" in TEXT or f"`cat {out}/report.md`" in TEXT


def test_every_chart_is_installed_in_a_version_that_is_named() -> None:
    installs = re.findall(r"helm install (\S+)(.*)", COMMANDS)
    named = {name for name, rest in installs if re.search(r"--version \d+\.\d+\.\d+", rest)}
    # Its operator's schemas are the same in all that are likely.
    assert {name for name, _ in installs} - named == {"monitoring"} and len(named) == 5


def test_sizes_of_training_are_those_of_the_overlays() -> None:
    for overlay in ("gpu", "gpu-multi"):
        (job,) = [v for v in render(f"{overlay}/jobs") if v["kind"] == "RayJob" and v["metadata"]["name"] == "train"]
        requests = containers(dict(pods(job))["worker workers"])[0]["resources"]["requests"]
        assert f"{quantity(requests['ephemeral-storage']) / 2**30:.0f} GiB for" in " ".join(TEXT.split())
    assert f"{quantity(requests['memory']) / 2**30:.0f} GiB of memory for 32B" in " ".join(TEXT.split())


def test_objects_that_commands_name_are_made() -> None:
    made = {f"{value['kind'].lower()}/{value['metadata']['name']}" for _, value in everything()}
    named = set(re.findall(r"\b(rayservice|rayjob)[/ ](multiverse|train)\b", COMMANDS))
    assert {f"{kind}/{name}" for kind, name in named} == {"rayservice/multiverse", "rayjob/train"} <= made


def test_services_are_those_that_kuberay_makes() -> None:
    """KubeRay appends to the names of its objects, Istio to that of a Gateway, Grafana's chart to its release's."""
    named = set(re.findall(r"(?<!ray)service/([\w-]+)", COMMANDS))
    assert named == {
        "multiverse-serve-svc",
        "multiverse-head-svc",
        "multiverse-gateway-istio",
        "monitoring-grafana",
        "development-head-svc",
    }


def test_selectors_choose_a_job_with_its_configuration() -> None:
    for chosen in re.findall(r"--selector 'app\.kubernetes\.io/component in \(([\w, -]+)\)'", COMMANDS):
        labels = chosen.split(", ")
        objects = [v for v in render("cpu/jobs") if v["metadata"]["labels"]["app.kubernetes.io/component"] in labels]
        assert sorted(value["kind"] for value in objects) == ["ConfigMap", "RayJob"]


def test_sum_of_the_requests_is_that_of_the_pods() -> None:
    (service,) = [value for value in render("cpu") if value["kind"] == "RayService"]
    asked = [containers(pod)[0]["resources"]["requests"] for _, pod in pods(service)]
    asked.append(service["spec"]["rayClusterConfig"]["autoscalerOptions"]["resources"]["requests"])
    cpus, gib = (sum(quantity(part[name]) for part in asked) for name in ("cpu", "memory"))
    assert f"pods ask for {cpus:.1f} CPUs and {gib / 2**30:.1f} GiB of memory" in " ".join(TEXT.split())


def test_replacement_makes_runbooks_links(root: Path, tmp_path: Path) -> None:
    replacements = yaml.safe_load("replacements:" + TEXT.partition("```yaml\nreplacements:")[2].partition("```")[0])
    resources = {"resources": [os.path.relpath(root / "dashboards/generated", tmp_path)]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(resources | replacements))
    (rule,) = [value for value in render_folder(tmp_path) if value["kind"] == "PrometheusRule"]
    links = [one["annotations"]["runbook_url"] for group in rule["spec"]["groups"] for one in group["rules"]]
    address = replacements["replacements"][0]["sourceValue"] + "/"
    assert links and [link for link in links if not link.startswith(f"{address}runbooks/")] == []
    assert [link for link in links if not (root / "docs" / link.removeprefix(address)).is_file()] == []


def test_namespaces_are_those_of_the_policies() -> None:
    installed = set(re.findall(r"--namespace ([\w-]+)", COMMANDS))
    of_policies = {"kuberay-system", "monitoring", "istio-system", "istio-ingress"}
    assert installed == {"multiverse", "nvidia-device-plugin", "kueue-system", *of_policies}
    policies = json.dumps([value for _, value in everything() if value["kind"] == "NetworkPolicy"])
    assert {"kube-system", *of_policies} == set(re.findall(r'"kubernetes.io/metadata.name": "([\w-]+)"', policies))
