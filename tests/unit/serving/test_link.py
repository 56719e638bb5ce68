"""A router's connection to a replica that is to go, or goes."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from multiverse.engine.references import KVReference
from multiverse.engine.segment import Delta, Sampling, Segment
from multiverse.serving.fleet.link import ReplicaLink
from multiverse.serving.fleet.messages import Command, Output, ReplicaLost, Status, Submit


class FakeTransport:
    """Takes commands while it is ``open``; ``fails``: what the next ones raise."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.fails: Exception | None = None
        self.commands: list[Command] = []
        self.queue: asyncio.Queue[list[Output]] = asyncio.Queue()

    async def outputs(self) -> AsyncIterator[list[Output]]:
        while True:
            yield await self.queue.get()

    async def command(self, commands: Sequence[Command]) -> None:
        await self.open.wait()
        if self.fails is not None:
            raise self.fails
        self.commands += commands

    async def export(self, lease: str, start: int, like: Segment) -> KVReference | None:
        raise NotImplementedError

    async def exported(self, id: str) -> KVReference | None:
        raise NotImplementedError

    async def carried(self, reference: KVReference) -> KVReference:
        raise NotImplementedError

    async def status(self) -> Status:
        return Status(0, 0, 100, 100, 4)

    async def close(self) -> None:
        return


def segment(id: str) -> Segment:
    return Segment(id, (1, 2), Sampling(4))


async def tokens(link: ReplicaLink, id: str) -> list[int]:
    return [token async for delta in link.run(segment(id)) for token in delta.tokens]


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_runs_on_a_replica_that_is_retired_ends_there() -> None:
    transport = FakeTransport()
    link = ReplicaLink("r0", "n0", transport)
    running = asyncio.create_task(tokens(link, "a"))
    await turns()
    transport.queue.put_nowait([("a", Delta((1,)))])
    await turns()
    retired = asyncio.create_task(link.retire())
    await turns()
    with pytest.raises(ReplicaLost, match="r0 is being retired"):
        await tokens(link, "b")
    transport.queue.put_nowait([("a", Delta((2,), finish="stop"))])
    assert await running == [1, 2]
    await retired
    assert [command.segment.id for command in transport.commands if isinstance(command, Submit)] == ["a"]


async def test_what_has_not_got_there_yet_is_given_back_at_once() -> None:
    transport = FakeTransport()
    link = ReplicaLink("r0", "n0", transport)
    running = asyncio.create_task(tokens(link, "a"))
    await turns()
    transport.open.clear()
    sent, unsent = asyncio.create_task(tokens(link, "b")), asyncio.create_task(tokens(link, "c"))
    await turns(1)
    late = asyncio.create_task(tokens(link, "d"))
    await turns()
    retired = asyncio.create_task(link.retire())
    with pytest.raises(ReplicaLost, match="r0 is being retired"):
        await late
    # The call under way may still have come through.
    transport.open.set()
    await turns()
    transport.queue.put_nowait([(id, Delta((7,), finish="stop")) for id in ("a", "b", "c")])
    assert await asyncio.gather(running, sent, unsent) == [[7]] * 3
    await retired


async def test_a_call_that_does_not_come_through_meanwhile_gives_back_only_what_it_carried() -> None:
    transport = FakeTransport()
    link = ReplicaLink("r0", "n0", transport)
    running = asyncio.create_task(tokens(link, "a"))
    await turns()
    transport.open.clear()
    transport.fails = RuntimeError("this is replica r1; the call was meant for r0")
    lost = asyncio.create_task(tokens(link, "b"))
    await turns()
    retired = asyncio.create_task(link.retire())
    await turns()
    transport.open.set()
    with pytest.raises(ReplicaLost):
        await lost
    transport.queue.put_nowait([("a", Delta((7,), finish="stop"))])
    assert await running == [7]
    await retired


async def test_a_call_that_fails_loses_a_replica_that_is_not_retired() -> None:
    transport = FakeTransport()
    link = ReplicaLink("r0", "n0", transport)
    transport.fails = ConnectionError("gone")
    with pytest.raises(ReplicaLost, match="gone"):
        await tokens(link, "a")
    assert link.lost.done()
    await link.close()
