"""The ingress: the OpenAI surface, and the sequencer of every request, over the engine replicas there are."""

import logging
import uuid
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.fleet import RayFleet
from multiverse.config import AppConfig

if TYPE_CHECKING:
    from multiverse.serving.api.gate import Gate

log = logging.getLogger(__name__)


@serve.deployment
@serve.ingress()
class Router:
    """Ready when an engine replica is."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, config: AppConfig, engines: DeploymentHandle, reducers: DeploymentHandle
    ) -> None:
        from multiverse.serving.access.admission import Admission

        self._gate: Gate
        self._name = config.name
        # Before the engines: keys that cannot be used are told at once.
        self._access = config.access_control()
        self._admission = Admission(config.admission_limits())
        self._fleet = await RayFleet.start(config, engines, reducers, f"router-{uuid.uuid4().hex[:8]}")

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Serve after the constructor."""
        from multiverse.serving.api.http import build_asgi
        from multiverse.telemetry.cluster import scrape
        from multiverse.telemetry.export import build_ray

        recorders = [build_ray(self._name, serve=True)]
        app = build_asgi(self._fleet.engine, self._name, recorders, self._access, self._admission, scrape)
        self._gate = app.state.gate
        return app

    async def check_health(self) -> None:
        """Asked by Serve every ten seconds. Metrics follow the engines by it also while no request comes."""
        try:
            await self._gate.look()
        except Exception:
            # Routers are not replaced because something cannot be measured.
            log.exception("what the engines tell cannot be measured")

    async def __del__(self) -> None:
        await self._fleet.close()
