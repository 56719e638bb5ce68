"""Several iterators as one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from multiverse.serving.api.merge import merged


class Source:
    def __init__(self, *items: int, error: Exception | None = None, wait: bool = False) -> None:
        self.items, self.error, self.wait, self.closed = items, error, wait, False

    async def run(self) -> AsyncIterator[int]:
        try:
            for item in self.items:
                yield item
            if self.error is not None:
                raise self.error
            if self.wait:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def test_items_come_with_their_source() -> None:
    items = [item async for item in merged([Source(1, 2).run(), Source(3).run(), Source().run()])]
    assert sorted(items) == [(0, 1), (0, 2), (1, 3)]


async def test_error_of_one_source_closes_all() -> None:
    waiting = Source(1, wait=True)
    with pytest.raises(RuntimeError, match="broken"):
        async for _ in merged([waiting.run(), Source(error=RuntimeError("broken")).run()]):
            pass
    assert waiting.closed


async def test_closing_closes_all_sources() -> None:
    sources = [Source(1, wait=True), Source(2, wait=True)]
    async with aclosing(merged([source.run() for source in sources])) as items:
        await anext(items)
        await anext(items)
    assert [source.closed for source in sources] == [True, True]
