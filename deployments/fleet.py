"""A `Fleet` over Serve's engine replicas: for a router, and for commands that measure."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.transports import ENGINES, EngineTransport, Reducers
from multiverse.config import AppConfig
from multiverse.models.manifest import Manifest
from multiverse.serving.fleet.directory import Directory, watch
from multiverse.serving.fleet.fleet import Fleet
from multiverse.serving.fleet.fleet_engine import FleetEngine
from multiverse.serving.fleet.link import ReplicaLink
from multiverse.serving.fleet.messages import ReplicaLost
from multiverse.serving.fleet.reducing import FleetReduction
from multiverse.serving.placement.costs import Costs
from multiverse.serving.sequencing.session import EngineLimits

log = logging.getLogger(__name__)

STATUS_SECONDS = 1.0
"""How often a replica is asked how it is. Its answer also says that it lives, and the question that we do."""


class RayFleet:
    """Keeps a fleet in line with the replicas that Serve runs. ``name``: this router's, unique in the cluster."""

    def __init__(self, name: str, engines: DeploymentHandle, reducers: DeploymentHandle, fleet: Fleet) -> None:
        self.fleet = fleet
        self.engine: FleetEngine
        self._name = name
        self._engines = engines
        self._reducers = reducers
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self._unwatch: Callable[[], None] = lambda: None

    @classmethod
    async def start(
        cls, config: AppConfig, engines: DeploymentHandle, reducers: DeploymentHandle, name: str
    ) -> "RayFleet":
        """Waits for the first engine replica."""
        model = (await asyncio.to_thread(config.engine_config)).model
        hello = await engines.hello.remote(replica="")
        costs = _costs(hello)
        manifest = Manifest.load(model)
        fleet = Fleet(manifest.vocabulary(), costs, config.placement)
        self = cls(name, engines, reducers, fleet)
        merging = Reducers(reducers)
        await merging.start()
        limits = EngineLimits(
            hello["max_model_len"], manifest.trained, config.branch_seconds, config.answer_seconds, config.reduce
        )
        reduction = FleetReduction(merging.links, fleet.where)
        self.engine = FleetEngine(fleet, model, limits, reduction, name, config.routers)
        self._unwatch = watch(ENGINES, self._heard)
        await fleet.someone()
        return self

    async def close(self) -> None:
        self._closing = True
        self._unwatch()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def pid(self, replica: str) -> int:
        """The process of an engine replica."""
        pid: int = (await self._engines.hello.remote(replica=replica))["pid"]
        return pid

    async def some_reducer(self) -> tuple[str, int]:
        """A reducer's name and process."""
        hello = await self._reducers.hello.remote(replica="")
        return hello["replica"], hello["pid"]

    def _heard(self, directory: Directory) -> None:
        for id, node in directory.items():
            if id not in self._tasks:
                self._tasks[id] = asyncio.create_task(self._keep(id, node))
        for id in self._tasks.keys() - directory.keys():
            self._tasks.pop(id).cancel()

    async def _keep(self, id: str, node: str) -> None:
        """Stay connected with one replica while Serve runs it."""
        while True:
            link = ReplicaLink(id, node, EngineTransport(self._engines, id, self._name))
            try:
                self.fleet.report(id, await self._joined(link))
                while not link.lost.done():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(link.lost), STATUS_SECONDS)
                    self.fleet.report(id, await link.status())
            except ReplicaLost as error:
                log.warning("%s", error)
            except asyncio.CancelledError:
                # Serve does not route to it any more: it is gone, or drains. Then what runs there ends in peace.
                (self.fleet.lose if link.lost.done() else self.fleet.remove)(id)
                await (link.close() if self._closing else link.retire())
                raise
            self.fleet.lose(id)
            await link.close()
            await asyncio.sleep(STATUS_SECONDS)

    async def _joined(self, link: ReplicaLink) -> Any:
        status = await link.status()
        self.fleet.add(link)
        return status


def _costs(hello: dict[str, Any]) -> Costs:
    """What the replica measured at its start, and this package's own measurements where it did not."""
    measured = hello["costs"] | {"source": "measured at start-up"} if hello["costs"] is not None else {}
    values = asdict(Costs.load()) | measured | {"kv_bytes": hello["kv_bytes"], "max_rows": hello["rows"]}
    values.pop("_steps")
    return Costs.of(values)
