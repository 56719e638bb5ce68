"""The Serve application. ``serve run deployments/serve.yaml`` and ``multiverse serve`` start it."""

from typing import Any

from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from deployments.reducer import MergeActor
from deployments.replica import EngineReplica
from deployments.router import Router
from deployments.transports import ENGINES, REDUCERS
from multiverse.config import AppConfig

CALLS = 10_000
"""Calls that a replica of ours takes at the same time: they wait for its engine, not for each other."""


def build(config: dict[str, Any] | AppConfig) -> Application:
    """Routers, engine replicas and reducers. ``config``: an `AppConfig` or its fields. Raises ConfigError."""
    if not isinstance(config, AppConfig):
        config = AppConfig.of(config)
    engines = EngineReplica.options(  # type: ignore[attr-defined]  # of class decorators mypy sees nothing
        name="EngineReplica",
        max_ongoing_requests=CALLS,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        request_router_config=_targeted(ENGINES),
        # The engine's start compiles and tests itself; what it generates may take minutes to end.
        health_check_period_s=2,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=120,
        graceful_shutdown_wait_loop_s=0.5,
        **_scale(config),
    ).bind(config)
    reducers = MergeActor.options(  # type: ignore[attr-defined]
        name="Reducer",
        num_replicas=config.reducers,
        graceful_shutdown_wait_loop_s=0.5,
        max_ongoing_requests=CALLS,
        ray_actor_options={"num_cpus": 0},
        request_router_config=_targeted(REDUCERS),
        health_check_period_s=2,
    ).bind(engines, config.name)
    return Router.options(  # type: ignore[attr-defined]
        name="Router",
        num_replicas=config.routers,
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_queued_requests,
        ray_actor_options={"num_cpus": 0},
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=60,
        graceful_shutdown_wait_loop_s=0.5,
    ).bind(config, engines, reducers)


def _targeted(topic: str) -> RequestRouterConfig:
    return RequestRouterConfig(
        request_router_class="deployments.targeting:Targeted", request_router_kwargs={"topic": topic}
    )


def _scale(config: AppConfig) -> dict[str, Any]:
    scaling = config.autoscaling
    if scaling is None:
        return {"num_replicas": config.replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            initial_replicas=config.replicas,
            target_ongoing_requests=scaling.target_segments,
            upscale_delay_s=scaling.upscale_seconds,
            downscale_delay_s=scaling.downscale_seconds,
            policy=AutoscalingPolicy(policy_function="deployments.scaling:by_segments"),
        )
    }
