"""KV in and out of one engine, as its front end sees it: references to what it exported, and KV of others adopted."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from multiverse.engine.arena import Arena, Peers, checksum, part
from multiverse.engine.config import EngineConfig
from multiverse.engine.exports import Written
from multiverse.engine.leases import Place
from multiverse.engine.references import KVFormat, KVMismatch, KVReference, Shard, fingerprint
from multiverse.engine.segment import Export
from multiverse.engine.transfer import Adopted
from multiverse.structure.tags import LAYOUT_VERSION

log = logging.getLogger(__name__)


class Transfers:
    """replica, node: this engine's name, and where its files can be read; engines of one node read each other's.

    mismatches: how often KV was refused because it was not what its reference said.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.arena = Arena(config.tensor_parallel_size, config.transfer_bytes)
        self.replica, self.node = "", ""
        self.mismatches = 0
        self._model = config.model
        self._ranks = config.tensor_parallel_size
        self._peers = Peers()
        self._exported: dict[str, asyncio.Future[KVReference | None]] = {}
        self._pending: set[str] = set()
        """Exports of which the connector has not told yet."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def format(self) -> KVFormat:
        """What this engine's KV is. Known once vLLM has started."""
        return KVFormat(str(self.arena.header()["packing"]), LAYOUT_VERSION, fingerprint(self._model), self._ranks)

    @property
    def block_bytes(self) -> int:
        """Bytes of one KV block, all ranks. Known once vLLM has started."""
        return int(self.arena.header()["block_bytes"]) * self._ranks

    def expect(self, exports: Iterable[Export]) -> None:
        """A segment that makes these will run."""
        for export in exports:
            self._pending.add(export.id)
            self._future(export.id)

    def _future(self, id: str) -> "asyncio.Future[KVReference | None]":
        return self._exported.setdefault(id, asyncio.get_running_loop().create_future())

    def give_up(self, exports: Iterable[Export]) -> None:
        """The segment is over: what it did not export it never will."""
        for export in exports:
            if export.id in self._pending:
                self._settle(export.id, None)

    def _settle(self, id: str, reference: KVReference | None) -> None:
        self._pending.discard(id)
        future = self._exported.get(id)
        if future is not None and not future.done():
            future.set_result(reference)

    def take(self, exports: Sequence[Export], written: Mapping[str, Written | None]) -> None:
        """What the connector says became of a segment's exports."""
        for export in exports:
            if export.id in written:
                self._pending.discard(export.id)
                task = asyncio.create_task(self._take(export, written[export.id]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _take(self, export: Export, written: Written | None) -> None:
        reference = None
        if written is not None:
            reference = await asyncio.to_thread(self._refer, export, *written)
        self._settle(export.id, reference)

    def _refer(self, export: Export, offset: int, blocks: int, skip: int, stop: int) -> KVReference:
        mine, size = self.format, blocks * int(self.arena.header()["block_bytes"])
        return KVReference(
            export.id,
            export.start,
            stop,
            skip,
            blocks,
            mine.packing,
            mine.layout_version,
            mine.fingerprint,
            self.replica,
            self.node,
            tuple(Shard(path, offset, size, checksum(part(path, offset, size))) for path in self.arena.paths),
        )

    async def exported(self, id: str) -> KVReference | None:
        """The reference of an export, as soon as it is there; None if it never will be, or if nobody made it."""
        return await self._exported[id] if id in self._exported else None

    def forget(self, ids: Iterable[str]) -> None:
        """These exports were released."""
        for id in ids:
            self._settle(id, None)
            self._exported.pop(id, None)

    async def adopt(self, lease: str, reference: KVReference) -> Adopted | None:
        """Make the KV of another engine readable for this one; None, counted and logged, if it is not what it should
        be. Then the segment has it rebuilt."""
        try:
            self.format.check(reference)
            paths = await asyncio.to_thread(self._peers.hold, reference)
        except KVMismatch as error:
            self.mismatches += 1
            log.warning("%s; it is made anew", error)
            return None
        offset = reference.shards[0].offset
        place = Place(paths, offset, reference.blocks, reference.skip)
        return Adopted(lease, reference.stop - reference.start, place)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.forget(tuple(self._exported))
        self._peers.close()
        self.arena.close()
