"""A router's side of the connection to one replica: many segments over one stream of outputs."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from typing import Protocol, TypeVar

from multiverse.engine.references import KVReference
from multiverse.engine.segment import Delta, Segment
from multiverse.serving.fleet.messages import (
    Command,
    Failed,
    Output,
    Release,
    ReplicaLost,
    SegmentFailed,
    Status,
    Stop,
    Submit,
)

log = logging.getLogger(__name__)
T = TypeVar("T")


class Transport(Protocol):
    """Calls of a `SegmentServer`, wherever it is, in this router's name. Any may raise."""

    def outputs(self) -> AsyncIterator[list[Output]]: ...

    async def command(self, commands: Sequence[Command]) -> None: ...

    async def export(self, lease: str, start: int, like: Segment) -> KVReference | None: ...

    async def exported(self, id: str) -> KVReference | None: ...

    async def carried(self, reference: KVReference) -> KVReference: ...

    async def status(self) -> Status: ...

    async def close(self) -> None: ...


class ReplicaLink:
    """A `Link`. Commands are sent one batch at a time, in order; what comes up meanwhile is the next batch."""

    def __init__(self, id: str, node: str, transport: Transport, seconds: float = 30.0) -> None:
        """seconds: what a call may take before the replica is taken for lost."""
        self._id = id
        self._node = node
        self._transport = transport
        self._seconds = seconds
        self._readers: dict[str, asyncio.Queue[Delta | Failed]] = {}
        self._outbox: list[Command] = []
        self._wake = asyncio.Event()
        self._retired = False
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._send())]

    @property
    def id(self) -> str:
        return self._id

    @property
    def node(self) -> str:
        return self._node

    @property
    def lost(self) -> "asyncio.Future[str]":
        """Resolves with the reason when the replica is gone."""
        return self._lost

    @property
    def busy(self) -> int:
        """Segments that run."""
        return len(self._readers)

    def lose(self, reason: str) -> None:
        """Take the replica for lost: whoever waits for it hears of it."""
        if not self._lost.done():
            self._lost.set_result(reason)
            for queue in self._readers.values():
                queue.put_nowait(Failed("dead", reason))

    async def run(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        self._check()
        queue = self._readers[segment.id] = asyncio.Queue()
        ended = False
        self._post(Submit(segment))
        try:
            while not ended:
                item = await queue.get()
                if isinstance(item, Failed):
                    ended = True
                    self._raise(item)
                else:
                    ended = item.finish is not None
                    yield item
        finally:
            del self._readers[segment.id]
            if not ended:
                self._post(Stop(segment.id))

    async def release(self, ids: Sequence[str]) -> None:
        self._check()
        self._post(Release(tuple(ids)))

    async def export(self, lease: str, start: int, like: Segment) -> KVReference | None:
        return await self._call(self._transport.export(lease, start, like))

    async def exported(self, id: str) -> KVReference | None:
        return await self._call(self._transport.exported(id))

    async def carried(self, reference: KVReference) -> KVReference:
        return await self._call(self._transport.carried(reference))

    async def status(self) -> Status:
        return await self._call(self._transport.status())

    async def retire(self) -> None:
        """No call reaches the replica any more. What runs there may end; then it is left.

        Segments that have not got there begin elsewhere.
        """
        self._retired = True
        unsent, self._outbox = self._outbox, []
        self._give_back(unsent)
        while self._readers and not self._lost.done():
            await asyncio.sleep(0.05)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.lose(f"replica {self._id} was retired")

    async def close(self) -> None:
        """Leave the replica, which gives back all that is this router's."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._lost.done():
            try:
                await asyncio.wait_for(self._transport.close(), self._seconds)
            except Exception as error:
                log.warning("replica %s could not be left: %s", self._id, error)
            self.lose(f"replica {self._id} was left")

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _check_lost(self) -> None:
        if self._lost.done():
            raise ReplicaLost(self._lost.result())

    def _check(self) -> None:
        self._check_lost()
        if self._retired:
            raise ReplicaLost(f"replica {self._id} is being retired")

    def _raise(self, failed: Failed) -> None:
        match failed.kind:
            case "refused":
                raise ValueError(failed.message)
            case "failed":
                raise SegmentFailed(failed.message)
            case "dead":
                self.lose(failed.message)
                raise ReplicaLost(failed.message)
            case "unsent":
                raise ReplicaLost(failed.message)

    def _give_back(self, commands: Sequence[Command]) -> None:
        """These will not be carried out."""
        for command in commands:
            if isinstance(command, Submit) and (queue := self._readers.get(command.segment.id)) is not None:
                queue.put_nowait(Failed("unsent", f"replica {self._id} is being retired"))

    async def _call(self, call: Awaitable[T]) -> T:
        """An answer of the replica. Raises ReplicaLost where it does not come."""
        task = asyncio.ensure_future(call)
        try:
            self._check()
            await asyncio.wait((task, self._lost), timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            self._check_lost()
            if not task.done():
                self.lose(f"replica {self._id} has not answered for {self._seconds:g} s")
                self._check_lost()
            return task.result()
        except (ReplicaLost, asyncio.CancelledError):
            raise
        except Exception as error:
            reason = f"replica {self._id}: {type(error).__name__}: {error}"
            if not self._retired:
                self.lose(reason)
            raise ReplicaLost(reason) from error
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _post(self, command: Command) -> None:
        if not self._lost.done() and not self._retired:
            self._outbox.append(command)
            self._wake.set()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._outbox = self._outbox, []
            try:
                await self._call(self._transport.command(batch))
            except ReplicaLost:
                self._give_back(batch)
                return

    async def _receive(self) -> None:
        try:
            async for batch in self._transport.outputs():
                for id, item in batch:
                    if (queue := self._readers.get(id)) is not None:
                        queue.put_nowait(item)
            self.lose(f"replica {self._id} ended its stream")
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.lose(f"replica {self._id}: {type(error).__name__}: {error}")
