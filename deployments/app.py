"""The Serve application. ``serve run deployments/serve.yaml`` and ``multiverse serve`` start it."""

from typing import Any

from ray.serve import Application

from deployments.router import Router
from multiverse.config import AppConfig


def build(config: dict[str, Any] | AppConfig) -> Application:
    """One replica with its engine. ``config``: an `AppConfig` or its fields. Raises ConfigError."""
    if not isinstance(config, AppConfig):
        config = AppConfig.of(config)
    return Router.options(  # type: ignore[attr-defined]  # of class decorators mypy sees nothing
        name="Router",
        num_replicas=1,
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_queued_requests,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        # The engine's start compiles and tests itself; a generation may take minutes to end.
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=60,
    ).bind(config)
