"""The merge actor as a Serve deployment: see `multiverse.serving.fleet.reducing`."""

import os
from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.transports import ENGINES, EngineReplicas
from multiverse.serving.fleet.directory import watch
from multiverse.serving.fleet.reducing import Arrival, Reducer
from multiverse.serving.joins import BlockKey, JoinPlan, OpenBlock
from multiverse.telemetry.engines import OPEN_BLOCKS


@serve.deployment
class MergeActor:
    async def __init__(self, engines: DeploymentHandle, model: str) -> None:  # type: ignore[misc]  # Serve awaits it
        from multiverse.telemetry.export import build_ray

        replicas = EngineReplicas(engines)
        watch(ENGINES, replicas.heard)
        await engines.hello.remote(replica="")
        self._id: str = serve.get_replica_context().replica_id.unique_id
        self._reducer = Reducer(replicas)
        self._recorder = build_ray(model, serve=True)

    async def hello(self, *, replica: str) -> dict[str, Any]:
        return {"replica": self._id, "pid": os.getpid()}

    async def arrive(self, block: OpenBlock, arrivals: Sequence[Arrival], *, replica: str) -> JoinPlan | None:
        self._check(replica)
        return await self._reducer.arrive(block, arrivals)

    async def close(self, key: BlockKey, *, replica: str) -> None:
        self._check(replica)
        self._reducer.close(key)

    async def check_health(self) -> None:
        """Asked by Serve."""
        self._recorder.set(OPEN_BLOCKS, self._reducer.open_blocks)

    def _check(self, replica: str) -> None:
        if replica != self._id:
            raise RuntimeError(f"this is reducer {self._id}; the call was meant for {replica}")
