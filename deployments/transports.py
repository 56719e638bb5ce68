"""The calls between routers, engine replicas and reducers, over Serve's handles."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import ray
from ray.serve.handle import DeploymentHandle

from multiverse.engine.references import KVReference
from multiverse.engine.segment import Segment
from multiverse.serving.fleet.directory import Directory, watch
from multiverse.serving.fleet.messages import Command, Output, ReplicaLost, Status
from multiverse.serving.fleet.reducing import Arrival
from multiverse.serving.joins import BlockKey, JoinPlan, OpenBlock

T = TypeVar("T")


async def _apart(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call outside of the HTTP request that it is for.

    Serve gives all calls of one request the same id, and takes one for another where they wait for different replicas.
    """

    async def made() -> T:
        return await call()

    return await asyncio.get_running_loop().create_task(made(), context=contextvars.Context())


ENGINES = "engines"
REDUCERS = "reducers"


class EngineTransport:
    """`multiverse.serving.fleet.link.Transport` to one engine replica."""

    def __init__(self, handle: DeploymentHandle, replica: str, router: str) -> None:
        self._handle = handle
        self._replica = replica
        self._router = router

    async def outputs(self) -> AsyncIterator[list[Output]]:
        stream = self._handle.options(stream=True).outputs.remote(self._router, replica=self._replica)
        try:
            async for batch in stream:
                yield batch
        finally:
            stream.cancel()

    async def _call(self, method: str, *args: Any) -> Any:
        remote = getattr(self._handle, method).remote
        return await _apart(lambda: remote(self._router, *args, replica=self._replica))

    async def command(self, commands: Sequence[Command]) -> None:
        await self._call("command", list(commands))

    async def export(self, lease: str, start: int, like: Segment) -> KVReference | None:
        found: KVReference | None = await self._call("export", lease, start, like)
        return found

    async def exported(self, id: str) -> KVReference | None:
        found: KVReference | None = await self._call("exported", id)
        return found

    async def carried(self, reference: KVReference) -> KVReference:
        carried: KVReference = await self._call("carried", reference)
        return carried

    async def status(self) -> Status:
        status: Status = await self._call("status")
        return status

    async def close(self) -> None:
        await self._call("close")


class ReducerTransport:
    """`multiverse.serving.fleet.reducing.ReducerLink` to one reducer. A call that takes too long counts as lost."""

    def __init__(self, handle: DeploymentHandle, replica: str, seconds: float = 30.0) -> None:
        self._handle = handle
        self._replica = replica
        self._seconds = seconds

    async def arrive(self, block: OpenBlock, arrivals: Sequence[Arrival]) -> JoinPlan | None:
        call = _apart(lambda: self._handle.arrive.remote(block, list(arrivals), replica=self._replica))
        plan: JoinPlan | None = await asyncio.wait_for(call, self._seconds)
        return plan

    async def close(self, key: BlockKey) -> None:
        call = _apart(lambda: self._handle.close.remote(key, replica=self._replica))
        await asyncio.wait_for(call, self._seconds)


class EngineReplicas:
    """`multiverse.serving.fleet.reducing.Replicas`: what a reducer asks of engines."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._nodes: Directory = {}

    def heard(self, directory: Directory) -> None:
        self._nodes = directory

    def node(self, replica: str) -> str:
        return self._nodes.get(replica, "")

    async def exported(self, replica: str, owner: str, id: str) -> KVReference | None:
        found: KVReference | None = await self._ask(EngineTransport(self._handle, replica, owner).exported(id), replica)
        return found

    async def carried(self, replica: str, owner: str, reference: KVReference) -> KVReference:
        transport = EngineTransport(self._handle, replica, owner)
        carried: KVReference = await self._ask(transport.carried(reference), replica)
        return carried

    async def _ask(self, call: Any, replica: str) -> Any:
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=1.0)
                if replica not in self._nodes:
                    raise ReplicaLost(f"replica {replica} is gone")
            return task.result()
        except (ReplicaLost, asyncio.CancelledError):
            raise
        except Exception as error:
            raise ReplicaLost(f"replica {replica}: {error}") from error
        finally:
            task.cancel()


class Reducers:
    """The reducers that live now."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._links: dict[str, ReducerTransport] = {}

    async def start(self) -> None:
        watch(REDUCERS, self._heard)
        await self._handle.hello.remote(replica="")

    def _heard(self, directory: Directory) -> None:
        self._links = {name: ReducerTransport(self._handle, name) for name in directory}

    def links(self) -> Mapping[str, ReducerTransport]:
        return self._links


class RayObjects:
    """`multiverse.serving.fleet.store.Objects` in Ray's object store. Whoever put an object owns it."""

    def put(self, value: np.ndarray) -> Any:
        # In a list: a reference passed on its own would be replaced by its bytes on the way.
        return [ray.put(value)]

    async def get(self, handle: Any) -> Any:
        return await handle[0]
