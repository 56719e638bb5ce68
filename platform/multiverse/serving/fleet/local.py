"""Replicas in this process: a `Transport` that calls a `SegmentServer`, and objects that need no store."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from multiverse.engine.references import KVReference
from multiverse.engine.segment import Segment
from multiverse.serving.fleet.messages import Command, Output, Status
from multiverse.serving.fleet.segment_server import SegmentServer


class LocalTransport:
    def __init__(self, server: SegmentServer, router: str) -> None:
        self._server = server
        self._router = router

    def outputs(self) -> AsyncIterator[list[Output]]:
        return self._server.outputs(self._router)

    async def command(self, commands: Sequence[Command]) -> None:
        self._server.command(self._router, commands)

    async def export(self, lease: str, start: int, like: Segment) -> KVReference | None:
        return await self._server.export(self._router, lease, start, like)

    async def exported(self, id: str) -> KVReference | None:
        return await self._server.exported(self._router, id)

    async def carried(self, reference: KVReference) -> KVReference:
        return await self._server.carried(self._router, reference)

    async def status(self) -> Status:
        return await self._server.status(self._router)

    async def close(self) -> None:
        await self._server.close(self._router)


class LocalObjects:
    """Copies instead of an object store."""

    def put(self, value: Any) -> Any:
        return value.copy()

    async def get(self, handle: Any) -> Any:
        return handle
