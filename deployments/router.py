"""The ingress of the one-replica application: the OpenAI surface over an engine in the same process."""

import asyncio
from typing import Any

from ray import serve

from multiverse.config import AppConfig


@serve.deployment
@serve.ingress()
class Router:
    """One replica. It is ready when its engine has started and passed the self-test."""

    async def __init__(self, config: AppConfig) -> None:  # type: ignore[misc]  # Serve awaits it
        from multiverse.serving.access.admission import Admission
        from multiverse.serving.local import MultiverseEngine

        self._name = config.name
        # Before the engine: keys that cannot be used are told at once.
        self._access = config.access_control()
        self._admission = Admission(config.admission_limits())
        self._engine = await MultiverseEngine.start(await asyncio.to_thread(config.engine_config))

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Serve after the constructor."""
        from multiverse.serving.api.http import build_asgi
        from multiverse.telemetry.metrics import build_ray

        return build_asgi(self._engine, self._name, [build_ray(serve=True)], self._access, self._admission)

    async def check_health(self) -> None:
        """Asked by Serve; an engine that does not answer has its replica replaced."""
        await self._engine.stats()

    async def __del__(self) -> None:
        await self._engine.shutdown()
