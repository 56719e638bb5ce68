"""Which leases of one request are out, so that none outlives it."""

import itertools
from collections.abc import Iterable

from multiverse.engine.segment import SegmentEngine


class LeaseBook:
    """Releasing a lease twice, or one that was never made, does nothing in the engine; so in doubt it stays here."""

    def __init__(self, engine: SegmentEngine, owner: str) -> None:
        self._engine = engine
        self._owner = owner
        self._numbers = itertools.count(1)
        self._out: dict[str, None] = {}

    def name(self) -> str:
        """A new lease's id. It counts as out from here on."""
        lease = f"{self._owner}/kv-{next(self._numbers)}"
        self._out[lease] = None
        return lease

    def settle(self, leases: Iterable[str]) -> None:
        """These are not out any more: a segment gave them back, or they were never made."""
        for lease in leases:
            self._out.pop(lease, None)

    async def release(self, leases: Iterable[str]) -> None:
        """Give back those of ``leases`` that are out."""
        out = [lease for lease in leases if lease in self._out]
        if out:
            await self._engine.release(out)
            self.settle(out)

    async def release_all(self) -> None:
        await self.release(tuple(self._out))
