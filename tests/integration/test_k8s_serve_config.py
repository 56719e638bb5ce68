"""The Serve configurations of k8s/ as Ray Serve reads them; nothing is started."""

import importlib
from typing import Any

import pytest
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from tests.unit.k8s.rendered import OVERLAYS, cluster_of, containers, render, serve_config


@pytest.fixture(params=OVERLAYS)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    (found,) = [value for value in render(request.param) if value["kind"] == "RayService"]
    return found


@pytest.fixture
def schema(service: dict[str, Any]) -> ServeDeploySchema:
    return ServeDeploySchema.model_validate(serve_config(service))


def deployments(application: Application) -> dict[str, Any]:
    """The deployments of an application by name, whatever is bound to them included."""
    found, pending = {}, [application]
    while pending:
        bound = pending.pop()._bound_deployment
        found[bound.name] = bound
        pending += [argument for argument in bound.init_args if isinstance(argument, Application)]
    return found


def test_no_field_is_unknown(service: dict[str, Any], schema: ServeDeploySchema) -> None:
    """Serve itself passes over unknown fields of HTTP options."""
    known = schema.model_dump()
    written = serve_config(service)
    assert written["http_options"].items() <= known["http_options"].items()
    assert known["proxy_location"] == "EveryNode" == written["proxy_location"]
    (application,) = known["applications"]
    assert written["applications"][0].items() <= application.items()


def test_application_is_built_of_its_arguments(service: dict[str, Any], schema: ServeDeploySchema) -> None:
    (application,) = schema.applications
    module, _, name = application.import_path.partition(":")
    found = deployments(getattr(importlib.import_module(module), name)(application.args))
    assert sorted(found) == ["EngineReplica", "Reducer", "Router"]
    options = found["EngineReplica"].ray_actor_options
    assert options["num_cpus"] == application.args["num_cpus"]
    assert options["num_gpus"] == application.args.get("num_gpus", 0)


def test_engine_fits_on_one_worker(service: dict[str, Any], schema: ServeDeploySchema) -> None:
    cluster = cluster_of(service)
    assert cluster is not None
    args = schema.applications[0].args
    for group in cluster["workerGroupSpecs"]:
        limits = containers(group["template"])[0]["resources"]["limits"]
        assert args["num_cpus"] <= int(limits["cpu"])
        assert args.get("num_gpus", 0) <= int(limits.get("nvidia.com/gpu", 0))
