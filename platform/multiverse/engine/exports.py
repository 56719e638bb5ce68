"""What leaves this engine's cache for others to read: bookkeeping in vLLM's scheduler process."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from multiverse.engine.arena import Allocator
from multiverse.engine.segment import Export
from multiverse.engine.transfer import ExportCopy, Stored

Written = tuple[int, int, int, int]
"""Offset in the arena, number of blocks, ``skip`` and ``stop`` as in `multiverse.engine.references.KVReference`."""


@dataclass(slots=True)
class Exports:
    """block_bytes: of one rank. clock: seconds, monotonic."""

    arena: Allocator
    block_bytes: int
    block_size: int
    clock: Callable[[], float] = time.monotonic
    full: int = 0
    """Exports that found no room: their KV is made anew by whoever needs it."""
    _since: dict[str, float] = field(default_factory=dict)

    def write(self, export: Export, stored: Stored, tokens: int) -> tuple[ExportCopy, Written] | None:
        """Reserve room for the tokens ``export.start ... tokens`` of ``stored``; None where there is none."""
        first = export.start // self.block_size
        count = -(-tokens // self.block_size) - first
        offset = self.arena.allocate(export.id, count * self.block_bytes)
        if offset is None:
            self.full += 1
            return None
        self._since[export.id] = self.clock()
        written = (offset, count, export.start - first * self.block_size, tokens)
        return ExportCopy(stored, first, count, offset), written

    def release(self, ids: Iterable[str]) -> None:
        for id in ids:
            if self._since.pop(id, None) is not None:
                self.arena.free(id)

    def expire(self, age: float) -> int:
        """Free what is older than ``age`` seconds; gives how many."""
        oldest = self.clock() - age
        expired = [id for id, since in self._since.items() if since < oldest]
        self.release(expired)
        return len(expired)

    @property
    def held(self) -> int:
        return len(self._since)
