"""How KV gets from one node to another: through an object store, by reference."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import torch

from multiverse.engine import arena
from multiverse.engine.arena import Allocator, Arena
from multiverse.engine.references import KVMismatch, KVReference, Shard


class Objects(Protocol):
    """Ray's object store, or what stands for it in a test."""

    def put(self, value: Any) -> Any:
        """A handle that other processes can be given."""
        ...

    async def get(self, handle: Any) -> Any:
        """Raises if the object is lost."""
        ...


class Store:
    """One replica's way to other nodes. ``inbound``: memory for what comes from there, bytes per rank.

    KV that leaves is copied into the object store once; KV that comes is copied from there into memory that the
    engine's workers read. An object lives as long as somebody has its handle: this side until it is dropped.
    """

    def __init__(self, objects: Objects, ranks: int, inbound: int) -> None:
        self._objects = objects
        self._arena = Arena(ranks, inbound)
        self._allocator = Allocator(inbound)
        self._sent: dict[str, KVReference] = {}
        self._figures = {"sent_bytes": 0, "received_bytes": 0, "received_seconds": 0.0}

    async def put(self, reference: KVReference) -> KVReference:
        """Copy the bytes of a reference of this node into the object store."""
        if (sent := self._sent.get(reference.id)) is not None:
            return sent
        shards = [replace(shard, carried=await asyncio.to_thread(self._put, shard)) for shard in reference.shards]
        sent = replace(reference, shards=tuple(shards))
        self._figures["sent_bytes"] += reference.size
        return self._sent.setdefault(reference.id, sent)

    def _put(self, shard: Shard) -> Any:
        return self._objects.put(arena.part(shard.path, shard.offset, shard.size).numpy())

    async def get(self, reference: KVReference, name: str) -> KVReference:
        """Bring the bytes of another node's reference here, under ``name`` until it is dropped. Raises KVMismatch."""
        size = reference.shards[0].size
        offset = self._allocator.allocate(name, size)
        if offset is None:
            raise KVMismatch(f"KV {reference.id} of {size} bytes finds no room among what came from other nodes")
        begun = time.perf_counter()
        try:
            shards = [
                await self._get(shard, path, offset)
                for shard, path in zip(reference.shards, self._arena.paths, strict=True)
            ]
        except asyncio.CancelledError:
            self._allocator.free(name)
            raise
        except Exception as error:
            self._allocator.free(name)
            raise KVMismatch(f"KV {reference.id} cannot be fetched: {error}") from error
        self._figures["received_bytes"] += reference.size
        self._figures["received_seconds"] += time.perf_counter() - begun
        return replace(reference, shards=tuple(shards))

    async def _get(self, shard: Shard, path: str, offset: int) -> Shard:
        if shard.carried is None:
            raise KVMismatch(f"it lies at {shard.path} of another node")
        value = await self._objects.get(shard.carried)
        memory = arena.part(path, offset, shard.size)
        await asyncio.to_thread(memory.copy_, torch.from_numpy(value))
        return replace(shard, path=path, offset=offset, carried=None)

    def drop(self, names: Iterable[str]) -> None:
        """Forget what was sent or came under these names."""
        for name in names:
            self._sent.pop(name, None)
            self._allocator.free(name)

    def figures(self) -> dict[str, float]:
        return {**self._figures, "inbound_bytes": self._allocator.used, "sent_held": len(self._sent)}

    def close(self) -> None:
        self._sent.clear()
        self._arena.close()
