"""Several asynchronous iterators as one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import TypeVar, cast

T = TypeVar("T")


def closing(source: AsyncIterator[T]) -> aclosing[AsyncGenerator[T, None]]:
    """``aclosing`` for what is declared as an iterator and is a generator."""
    return aclosing(cast(AsyncGenerator[T, None], source))


async def merged(sources: Sequence[AsyncIterator[T]]) -> AsyncGenerator[tuple[int, T], None]:
    """Items of all sources with their source's index, as they come. The first error ends all.

    When this ends, in whatever way, every source has been closed.
    """
    items: asyncio.Queue[tuple[int, T] | None] = asyncio.Queue()

    async def pump(index: int, source: AsyncIterator[T]) -> None:
        try:
            async with closing(source):
                async for item in source:
                    items.put_nowait((index, item))
        finally:
            items.put_nowait(None)

    pumps = [asyncio.create_task(pump(index, source)) for index, source in enumerate(sources)]
    try:
        open_pumps = len(pumps)
        while open_pumps:
            item = await items.get()
            if item is not None:
                yield item
                continue
            open_pumps -= 1
            for pump_task in pumps:
                if pump_task.done():
                    pump_task.result()
    finally:
        for pump_task in pumps:
            pump_task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
