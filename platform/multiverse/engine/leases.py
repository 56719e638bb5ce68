"""Which KV blocks are kept for whom: pure bookkeeping, used inside vLLM's scheduler process.

A lease keeps the KV of one finished segment. It holds references on vLLM's own blocks, so nothing is copied; under
memory pressure it is *spilled* (the worker copies its tokens to host memory, the blocks go back to the pool) or, where
the host budget is used up, *dropped* (whoever needs it has it rebuilt).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Block(Protocol):
    block_id: int


class BlockPool(Protocol):
    """What is used of ``vllm.v1.core.block_pool.BlockPool``."""

    def touch(self, blocks: Sequence[Block]) -> None: ...

    def free_blocks(self, ordered_blocks: Iterable[Block]) -> None: ...

    def get_num_free_blocks(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Place:
    """KV that another engine made: ``blocks`` blocks from ``offset`` on in each rank's file (see ``arena.py``).

    The first token meant is the one ``skip`` tokens behind the beginning of the first block.
    """

    paths: tuple[str, ...]
    offset: int
    blocks: int
    skip: int


@dataclass(slots=True)
class Lease:
    """KV of ``tokens`` tokens of a segment: in ``blocks``, in host memory, or at another engine's ``place``.

    since: when it was made, seconds on the table's clock. host_blocks: what it takes of host memory, in blocks.
    """

    id: str
    owner: int
    tokens: int
    blocks: tuple[Block, ...]
    since: float
    host_blocks: int = 0
    place: Place | None = None

    @property
    def block_ids(self) -> tuple[int, ...]:
        return tuple(block.block_id for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Spill:
    """The worker copies these blocks to host memory before anything overwrites them."""

    lease: str
    block_ids: tuple[int, ...]


@dataclass(slots=True)
class LeaseTable:
    """host_blocks: how many blocks may be spilled at the same time. clock: seconds, monotonic."""

    pool: BlockPool
    host_blocks: int
    clock: Callable[[], float] = time.monotonic
    spilled: int = 0
    dropped: int = 0
    leaked: int = 0
    _leases: dict[str, Lease] = field(default_factory=dict)
    _pending: set[str] = field(default_factory=set)
    _released_on_host: list[str] = field(default_factory=list)

    def expect(self, lease: str) -> None:
        """A running segment will leave this lease."""
        self._pending.add(lease)

    def pending(self, lease: str) -> bool:
        return lease in self._pending

    def hold(self, lease: str, owner: int, blocks: Sequence[Block], tokens: int) -> None:
        """The segment ended: keep its blocks, unless the lease was released before."""
        if lease in self._pending:
            self._pending.discard(lease)
            self.pool.touch(blocks)
            self._leases[lease] = Lease(lease, owner, tokens, tuple(blocks), self.clock())

    def adopt(self, lease: str, owner: int, tokens: int, place: Place) -> None:
        """KV that lies elsewhere, under a name of this table's."""
        self._leases[lease] = Lease(lease, owner, tokens, (), self.clock(), place=place)

    def give_up(self, lease: str) -> None:
        """The segment ended without leaving a lease."""
        self._pending.discard(lease)

    def get(self, lease: str) -> Lease | None:
        return self._leases.get(lease)

    def release(self, leases: Iterable[str]) -> None:
        """Give leases back; unknown ones were never made, or dropped, and nothing is to do."""
        for id in leases:
            self._pending.discard(id)
            lease = self._leases.pop(id, None)
            if lease is None:
                continue
            if lease.blocks:
                self.pool.free_blocks(reversed(lease.blocks))
            elif lease.host_blocks:
                self._released_on_host.append(id)

    def expire(self, age: float) -> None:
        """Give back leases older than ``age`` seconds: whoever should have released them is gone. Counted as leaked."""
        oldest = self.clock() - age
        expired = [lease.id for lease in self._leases.values() if lease.since < oldest]
        self.leaked += len(expired)
        self.release(expired)

    def take_released_on_host(self) -> tuple[str, ...]:
        """Spilled leases released since the last call: the worker frees their host memory."""
        taken = tuple(self._released_on_host)
        self._released_on_host.clear()
        return taken

    def make_room(self, blocks: int, owner: int, keep: frozenset[str] = frozenset()) -> list[Spill]:
        """Free blocks until ``blocks`` are free or no lease is left to take: the newest requests' leases first.

        Leases in ``keep`` (what the asking request will read) are spilled last and never dropped. Where host memory
        is used up, only leases of requests newer than ``owner`` are dropped, so the oldest request always gets on.
        """
        spills: list[Spill] = []
        order = sorted(self._leases.values(), key=lambda lease: (lease.id in keep, -lease.owner))
        for lease in order:
            if self.pool.get_num_free_blocks() >= blocks:
                break
            if not lease.blocks:
                continue
            if self.host_used + len(lease.blocks) <= self.host_blocks:
                spills.append(Spill(lease.id, lease.block_ids))
                self.spilled += 1
                held, lease.blocks, lease.host_blocks = lease.blocks, (), len(lease.blocks)
                self.pool.free_blocks(reversed(held))
            elif lease.owner > owner and lease.id not in keep:
                self.dropped += 1
                self.release([lease.id])
        return spills

    @property
    def host_used(self) -> int:
        """Blocks of host memory in use."""
        return sum(lease.host_blocks for lease in self._leases.values())

    @property
    def held(self) -> int:
        """Leases that exist now, spilled ones included."""
        return len(self._leases)

    @property
    def blocks_held(self) -> int:
        return len({block.block_id for lease in self._leases.values() for block in lease.blocks})
