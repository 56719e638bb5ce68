"""Places in the batch, and who gets the next one."""

import asyncio
import contextlib

from multiverse.serving.sequencing.rows import Rows


class Hall:
    """Holders of places; each leaves when it is told to."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows = Rows(lambda: self.capacity)
        self.inside: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def come(self, name: str, request: str, arrival: int) -> None:
        leave = self._leave[name] = asyncio.Event()

        async def hold() -> None:
            async with self.rows.row(request, arrival):
                self.inside.append(name)
                await leave.wait()
                self.inside.remove(name)

        self._tasks[name] = asyncio.create_task(hold())
        await asyncio.sleep(0)

    async def go(self, name: str) -> None:
        self._leave[name].set()
        await self._tasks.pop(name)
        await asyncio.sleep(0)

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._tasks.pop(name)
        await asyncio.sleep(0)


async def test_without_a_limit_everybody_gets_a_place() -> None:
    rows = Rows()
    async with rows.row("a", 0), rows.row("a", 0), rows.row("b", 1):
        assert (rows.held, rows.waiting) == (3, 0)
    assert rows.held == 0


async def test_a_free_place_goes_to_the_request_that_has_fewest() -> None:
    hall = Hall(capacity=3)
    for name in ("wide-1", "wide-2", "wide-3", "wide-4"):
        await hall.come(name, "wide", 0)
    await hall.come("narrow", "narrow", 1)
    assert hall.inside == ["wide-1", "wide-2", "wide-3"]
    await hall.go("wide-1")
    assert hall.inside == ["wide-2", "wide-3", "narrow"]


async def test_among_equals_the_earlier_arrival_is_first() -> None:
    hall = Hall(capacity=1)
    await hall.come("first", "x", 0)
    await hall.come("late", "late", 9)
    await hall.come("early", "early", 3)
    await hall.go("first")
    assert hall.inside == ["early"]


async def test_one_who_leaves_the_queue_is_passed_over() -> None:
    hall = Hall(capacity=1)
    await hall.come("first", "x", 0)
    await hall.come("gone", "a", 1)
    await hall.come("patient", "b", 2)
    await hall.cancel("gone")
    await hall.go("first")
    assert hall.inside == ["patient"]


async def test_one_cancelled_while_its_place_is_given_hands_it_on() -> None:
    rows = Rows(lambda: 1)

    async def hold() -> None:
        async with rows.row("b", 1):
            await asyncio.sleep(60)

    async with rows.row("a", 0):
        task = asyncio.create_task(hold())
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert (rows.held, rows.waiting) == (0, 0)


async def test_more_capacity_lets_more_in_when_it_is_told() -> None:
    hall = Hall(capacity=1)
    await hall.come("one", "a", 0)
    await hall.come("two", "b", 1)
    hall.capacity = 2
    hall.rows.grant()
    await asyncio.sleep(0)
    assert hall.inside == ["one", "two"]
