"""What the YAML names is what the code, the images and KubeRay know."""

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from multiverse.config import AppConfig, Configuration
from multiverse.curation.job.config import CurateConfig
from multiverse.evaluation.accuracy.config import EvaluateConfig
from multiverse.evaluation.speed.config import SpeedConfig
from multiverse.training.config import TrainConfig
from multiverse.training.plan import make_plan
from tests.unit.k8s.rendered import (
    KUSTOMIZATIONS,
    OVERLAYS,
    ROOT,
    Object,
    all_pods,
    cluster_of,
    containers,
    of_kind,
    pods,
    quantity,
    render,
    render_folder,
    serve_config,
)

# Read by libraries: boto3, huggingface_hub, the C library and tools that ask for a home, several that report use.
OF_LIBRARIES = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "HF_HUB_OFFLINE",
    "HOME",
    "VLLM_NO_USAGE_STATS",
    "DO_NOT_TRACK",
    "RAY_USAGE_STATS_ENABLED",
}
JOBS = [value["metadata"]["name"] for value in render("cpu/jobs") if value["kind"] == "RayJob"]
CONFIGURATIONS: dict[str, type[Configuration]] = {
    "benchmark": SpeedConfig,
    "curate": CurateConfig,
    "evaluate": EvaluateConfig,
    "train": TrainConfig,
}


def job_of(overlay: str, name: str) -> tuple[Object, Object]:
    """A RayJob and the ConfigMap that it mounts."""
    objects = render(f"{overlay}/jobs")
    (job,) = [value for value in objects if value["kind"] == "RayJob" and value["metadata"]["name"] == name]
    (configuration,) = [value for value in objects if value["kind"] == "ConfigMap"]
    return job, configuration


def service_of(overlay: str) -> Object:
    (service,) = [value for value in render(overlay) if value["kind"] == "RayService"]
    return service


def test_there_is_a_job_of_each_kind() -> None:
    assert sorted(JOBS) == ["benchmark", "curate", "evaluate", "train"]


@pytest.mark.parametrize("job", JOBS)
def test_script_of_the_entrypoint_exists(root: Path, job: str) -> None:
    scripts = {job_of(overlay, job)[0]["spec"]["entrypoint"].split()[1] for overlay in OVERLAYS}
    assert scripts == {f"jobs/{job}.py"}
    assert (root / f"jobs/{job}.py").is_file()


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("job", JOBS)
def test_configuration_of_the_entrypoint_is_mounted_on_the_head(overlay: str, job: str) -> None:
    value, configuration = job_of(overlay, job)
    command, option, path = value["spec"]["entrypoint"].rsplit(maxsplit=2)
    assert (command, option) == (f"python jobs/{job}.py", "--config")
    head = dict(pods(value))["head"]["spec"]
    (mount,) = [m for m in head["containers"][0]["volumeMounts"] if m["mountPath"] == str(Path(path).parent)]
    (volume,) = [v for v in head["volumes"] if v["name"] == mount["name"]]
    assert volume["configMap"]["name"] == configuration["metadata"]["name"]
    assert Path(path).name in configuration["data"]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("job", JOBS)
def test_configuration_is_what_the_job_reads(overlay: str, job: str) -> None:
    text = job_of(overlay, job)[1]["data"][f"{job}.yaml"]
    assert CONFIGURATIONS[job].of(yaml.safe_load(text)).model_dump()["out"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_training_workers_fit_into_the_jobs_cluster(overlay: str) -> None:
    value, configuration = job_of(overlay, "train")
    wanted = TrainConfig.of(yaml.safe_load(configuration["data"]["train.yaml"])).workers
    (group,) = cluster_of(value)["workerGroupSpecs"]  # type: ignore[index]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert wanted.count * wanted.cpus <= group["replicas"] * quantity(limits["cpu"])
    gpus = group["replicas"] * int(limits.get("nvidia.com/gpu", 0))
    assert gpus == (wanted.count if wanted.use_gpu else 0)


# Qwen2.5-7B's, of which no config.json is here.
PARAMETERS = {"gpu": 7_615_616_512}


@pytest.mark.parametrize("overlay", ["gpu", "gpu-multi"])
def test_training_has_room_for_what_its_workers_hold_and_write(overlay: str) -> None:
    """Memory: the model in float32 for each worker of a pod. /tmp: a whole checkpoint, and the exported model."""
    value, configuration = job_of(overlay, "train")
    config = TrainConfig.of(yaml.safe_load(configuration["data"]["train.yaml"]))
    parameters = PARAMETERS.get(overlay) or make_plan(config).parameters
    (group,) = cluster_of(value)["workerGroupSpecs"]  # type: ignore[index]
    pod = group["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    workers = config.workers.count // group["replicas"]
    assert workers * parameters * 4 * 1.1 < quantity(resources["limits"]["memory"])
    (tmp,) = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "tmp"]
    assert parameters * (12 + 2) * 1.1 < quantity(tmp)
    assert resources["requests"]["ephemeral-storage"] == tmp


@pytest.mark.parametrize("overlay", ["gpu", "gpu-multi"])
def test_quota_of_the_example_covers_each_job(root: Path, overlay: str) -> None:
    """Kueue admits nothing that asks for a resource which the queue does not name."""
    (queue,) = [
        value
        for value in yaml.safe_load_all((root / "k8s/examples/queue.yaml").read_text())
        if value["kind"] == "ClusterQueue"
    ]
    (resources,) = queue["spec"]["resourceGroups"]
    quota = {
        flavor["name"].removeprefix("multiverse-"): {
            r["name"]: quantity(r["nominalQuota"]) for r in flavor["resources"]
        }
        for flavor in resources["flavors"]
    }
    assert all(names.keys() == set(resources["coveredResources"]) for names in quota.values())
    for job in JOBS:
        (group,) = cluster_of(job_of(overlay, job)[0])["workerGroupSpecs"]  # type: ignore[index]
        pod = group["template"]["spec"]
        least = quota[pod["nodeSelector"]["multiverse/node-group"]]
        for name, asked in pod["containers"][0]["resources"]["requests"].items():
            assert group["replicas"] * quantity(asked) <= least[name], (job, name)


@pytest.mark.parametrize("overlay", ["gpu", "gpu-multi"])
def test_training_starts_from_what_serving_reads_at_first_and_writes_what_others_read(overlay: str) -> None:
    configurations = {job: yaml.safe_load(job_of(overlay, job)[1]["data"][f"{job}.yaml"]) for job in JOBS}
    train = configurations["train"]
    assert serve_config(service_of(overlay))["applications"][0]["args"]["model"] == train["model"]
    assert not train["model"].startswith(train["out"])
    assert (
        configurations["evaluate"]["model"]["model"] == configurations["benchmark"]["model"] == f"{train['out']}/model"
    )
    assert configurations["curate"]["out"] == train["data"]["rows"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_answers_of_curations_llm_are_kept_on_the_volume(overlay: str) -> None:
    config = CurateConfig.of(yaml.safe_load(job_of(overlay, "curate")[1]["data"]["curate.yaml"]))
    assert config.llm.cache_dir == Path("/models/cache/curate")


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("job", ["evaluate", "benchmark"])
def test_engines_fit_into_the_jobs_cluster(overlay: str, job: str) -> None:
    value, configuration = job_of(overlay, job)
    values = yaml.safe_load(configuration["data"][f"{job}.yaml"])
    (group,) = cluster_of(value)["workerGroupSpecs"]  # type: ignore[index]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    if job == "evaluate":
        config = EvaluateConfig.of(values)
        engine, gpus = config.model.engine, config.workers.gpus  # type: ignore[union-attr]
        count, cpus = config.workers.count, config.workers.cpus
    else:
        speed = SpeedConfig.of(values)
        engine, gpus, count, cpus = speed.engine, speed.num_gpus, 1, speed.num_cpus
    assert count * cpus <= quantity(limits["cpu"])
    assert count * gpus <= int(limits.get("nvidia.com/gpu", 0))
    assert gpus == (engine.tensor_parallel_size if overlay != "cpu" else 0)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_engines_fill_the_workers_that_the_autoscaler_may_start(overlay: str) -> None:
    """As many engines as GPUs (or one for all CPUs), neither more than there is room for nor fewer."""
    service = service_of(overlay)
    config = AppConfig.of(serve_config(service)["applications"][0]["args"])
    groups = cluster_of(service)["workerGroupSpecs"]  # type: ignore[index]
    limits = groups[0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    per_worker = int(quantity(limits["cpu"]) // config.num_cpus)
    if config.num_gpus:
        per_worker = min(per_worker, int(limits["nvidia.com/gpu"]) // int(config.num_gpus))
        assert per_worker * config.num_gpus == int(limits["nvidia.com/gpu"])
    least, most = (sum(group[field] for group in groups) * per_worker for field in ("minReplicas", "maxReplicas"))
    assert least <= config.replicas <= most
    if config.autoscaling is not None:
        assert (config.autoscaling.min_replicas, config.autoscaling.max_replicas) == (least, most)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_engine_uses_the_gpus_or_threads_that_it_counts_for(overlay: str) -> None:
    config = AppConfig.of(serve_config(service_of(overlay))["applications"][0]["args"])
    if config.num_gpus:
        assert config.engine.tensor_parallel_size == config.num_gpus
    else:
        assert config.engine.threads == config.num_cpus


def test_gpu_overlay_has_two_groups_of_workers_with_eight_gpus() -> None:
    groups = cluster_of(service_of("gpu"))["workerGroupSpecs"]  # type: ignore[index]
    nodes = {group["groupName"]: group["template"]["spec"]["nodeSelector"] for group in groups}
    assert nodes == {
        "reserved": {"multiverse/node-group": "gpu"},
        "spot": {"multiverse/node-group": "gpu-spot"},
    }
    assert {
        group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for group in groups
    } == {"8"}


def test_images_are_those_that_the_dockerfiles_make(root: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    files = {path.stem for path in (root / "k8s/docker").glob("*.Dockerfile")}
    images = {
        where.split("/")[0].split()[0]: {container["image"] for container in containers(pod)}
        for where, pod in all_pods()
    }
    assert images == {
        "cpu": {f"multiverse-cpu:{version}"},
        "gpu": {f"registry.example.com/multiverse-gpu:{version}"},
        "gpu-multi": {f"registry.example.com/multiverse-gpu:{version}"},
    }
    assert files == {"cpu", "gpu"}


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_all_kustomizations_take_the_image_from_one_file(tmp_path: Path, image: str) -> None:
    for folder in ("k8s", "dashboards"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    file = tmp_path / f"k8s/components/{image}/kustomization.yaml"
    file.write_text(re.sub(r"newName: .+", "newName: here.example.com/mine", file.read_text()))
    for kustomization in KUSTOMIZATIONS:
        if kustomization.startswith("cpu") == (image == "cpu"):
            objects = render_folder(tmp_path / "k8s/overlays" / kustomization)
            images = {c["image"] for value in objects for _, pod in pods(value) for c in containers(pod)}
            assert images == {"here.example.com/mine:0.1.0"}, kustomization


def with_traces(overlay: str, folder: Path) -> list[Object]:
    """The overlay's objects with ``components/traces``, by a kustomization in ``folder``."""
    overlays, components = (
        os.path.relpath(ROOT / "k8s" / name, folder.resolve()) for name in ("overlays", "components")
    )
    text = {"resources": [f"{overlays}/{overlay}"], "components": [f"{components}/traces"], "namespace": "multiverse"}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return render_folder(folder)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_traces_go_where_the_component_says(overlay: str, tmp_path: Path) -> None:
    objects = {(value["kind"], value["metadata"]["name"]): value for value in with_traces(overlay, tmp_path)}
    (name,) = (endpoints := objects["ConfigMap", "multiverse-traces"]["data"])
    host = re.fullmatch(r"http://[\w-]+\.([\w-]+):(\d+)", endpoints[name])
    for where, pod in [(where, pod) for where, pod in all_pods() if "submitter" not in where]:
        (variable,) = [v for v in containers(pod)[0]["env"] if v["name"] == name]
        wanted = {"name": "multiverse-traces", "key": name, "optional": True}
        assert variable["valueFrom"]["configMapKeyRef"] == wanted, where
    (rule,) = objects["NetworkPolicy", "traces"]["spec"]["egress"]
    assert host is not None and rule["ports"] == [{"port": int(host[2]), "protocol": "TCP"}]
    assert [to["namespaceSelector"]["matchLabels"] for to in rule["to"]] == [{"kubernetes.io/metadata.name": host[1]}]


@pytest.mark.parametrize("overlay", ["gpu", "gpu-multi"])
def test_gateway_is_the_one_that_kuberay_looks_for_and_no_load_balancer(overlay: str) -> None:
    """KubeRay 1.7 leaves a Gateway of its name alone whose class and listener are as it would write them."""
    (gateway,) = [value for value in render(overlay) if value["kind"] == "Gateway"]
    service = service_of(overlay)
    assert gateway["metadata"]["name"] == f"{service['metadata']['name']}-gateway"
    assert gateway["metadata"]["annotations"] == {"networking.istio.io/service-type": "ClusterIP"}
    options = service["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]
    listeners = [{"name": "http", "protocol": "HTTP", "port": 80}]
    assert gateway["spec"] == {"gatewayClassName": options["gatewayClassName"], "listeners": listeners}


def test_ray_version_is_that_of_the_lock(root: Path) -> None:
    pin = re.search(r"^ray==(.+)$", (root / "requirements/cpu.lock").read_text(), re.MULTILINE)
    versions = {cluster_of(value)["rayVersion"] for _, value in of_kind("RayService", "RayJob", "RayCluster")}  # type: ignore[index]
    assert pin is not None and versions == {pin[1]}


def test_variables_are_read_by_somebody(root: Path) -> None:
    code = "\n".join(path.read_text() for path in (root / "platform").rglob("*.py"))
    named = {v["name"] for _, pod in all_pods() for container in containers(pod) for v in container["env"]}
    own = {name for name in named - OF_LIBRARIES if f'"{name}"' in code}
    # The key of curation's LLM is read under the name that its configuration gives.
    asked = {
        yaml.safe_load(job_of(overlay, "curate")[1]["data"]["curate.yaml"])["llm"]["key_env"] for overlay in OVERLAYS
    }
    assert named - OF_LIBRARIES - own == asked
    assert own == {"MULTIVERSE_HOME", "AWS_ENDPOINT_URL_S3", "RAY_worker_niceness", "OTEL_EXPORTER_OTLP_ENDPOINT"}


def test_secrets_and_their_keys_are_those_of_the_readme(root: Path) -> None:
    keys: dict[str, set[str]] = {"multiverse-ray-token": {"auth_token"}}  # KubeRay's name for the key
    for _, pod in all_pods():
        for container in containers(pod):
            for variable in container["env"]:
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    keys.setdefault(reference["name"], set()).add(reference["key"])
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                keys.setdefault(volume["secret"]["secretName"], set())
    readme = (root / "k8s/README.md").read_text().replace("\\\n", " ")
    made = {
        found[1]: set(re.findall(r"--from-(?:literal|file)=(\w[\w.]*)=", found[2]))
        for found in re.finditer(r"create secret generic ([\w-]+)(.*)", readme)
    }
    assert made.keys() == keys.keys()
    assert made.pop("multiverse-api-keys") == {"keys.yaml"}
    assert all(keys[name] >= made[name] > set() for name in made)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_file_of_api_keys_is_mounted_wherever_a_router_may_run(overlay: str) -> None:
    service = service_of(overlay)
    access = AppConfig.of(serve_config(service)["applications"][0]["args"]).access
    assert access.keys_file == Path("/etc/multiverse/keys/keys.yaml")
    for which, pod in pods(service):
        mounts = {mount["mountPath"]: mount["name"] for mount in containers(pod)[0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes[mounts["/etc/multiverse/keys"]]["secret"]["secretName"] == "multiverse-api-keys", which


def test_ports_are_those_of_serve_and_of_ray() -> None:
    for where, value in of_kind("RayService"):
        options = serve_config(value)["http_options"]
        assert options["host"] == "0.0.0.0", where
        for which, pod in pods(value):
            ports = {port["name"]: port["containerPort"] for port in containers(pod)[0]["ports"]}
            assert ports["serve"] == options["port"] == 8000, (where, which)
            # ray start's default with KubeRay, whose name PodMonitors go by
            assert ports["metrics"] == 8080, (where, which)


def test_monitors_name_ports_that_pods_have() -> None:
    ports = {
        kind: {
            port["name"] for where, pod in all_pods() if kind in where for port in containers(pod)[0].get("ports", ())
        }
        for kind in ("head", "worker")
    }
    for where, monitor in of_kind("PodMonitor"):
        kind = monitor["spec"]["selector"]["matchLabels"]["ray.io/node-type"]
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports[kind], where


def test_alerts_and_dashboards_are_applied_with_the_monitors(root: Path) -> None:
    generated = root / "dashboards/generated"
    rule = yaml.safe_load((generated / "alerts.yaml").read_text())
    boards = {path.name: path.read_text() for path in generated.glob("*.json")}
    for overlay in ("gpu", "gpu-multi"):
        objects = render(overlay)
        assert [value["spec"] for value in objects if value["kind"] == "PrometheusRule"] == [rule["spec"]]
        shown = [value for value in objects if value["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
        assert {name: text for value in shown for name, text in value["data"].items()} == boards
    assert {where.split()[0] for where, _ in of_kind("PodMonitor", "PrometheusRule")} == {"gpu", "gpu-multi"}


def test_label_tells_a_job_from_the_others() -> None:
    """What `kubectl apply --selector` chooses by."""
    labels = [value["metadata"]["labels"]["app.kubernetes.io/component"] for value in render("cpu/jobs")]
    assert sorted(labels) == sorted([*JOBS, "job-configuration"])


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay.startswith("gpu")])
def test_dtype_on_gpus_is_not_left_to_what_the_heads_cpu_is_fast_in(overlay: str) -> None:
    configurations = {
        "serving": serve_config(service_of(overlay))["applications"][0]["args"],
        "evaluate": yaml.safe_load(job_of(overlay, "evaluate")[1]["data"]["evaluate.yaml"])["model"],
        "benchmark": yaml.safe_load(job_of(overlay, "benchmark")[1]["data"]["benchmark.yaml"]),
    }
    assert {name: value["engine"].get("dtype") for name, value in configurations.items()} == dict.fromkeys(
        configurations, "bfloat16"
    )
