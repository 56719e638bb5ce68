"""References to KV that lies outside of an engine: what travels between replicas in place of the bytes."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


class KVMismatch(RuntimeError):
    """KV that is not what its reference says, or does not fit this engine. It is never used: it is made anew."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One tensor-parallel rank's part: ``size`` bytes at ``offset`` of the file ``path``, with their xxh3 checksum.

    carried: the same bytes in Ray's object store, for other nodes (an ObjectRef, opaque here).
    """

    path: str
    offset: int
    size: int
    checksum: int
    carried: Any = None


@dataclass(frozen=True, slots=True)
class KVReference:
    """KV of the tokens ``start ... stop`` of a sequence, in whole blocks, the first of which begins ``skip`` earlier.

    id: ``replica`` knows it by this name, and keeps it until it is released. node: where its files are.
    packing, layout_version, fingerprint: must be those of the engine that reads it (see `check`).
    """

    id: str
    start: int
    stop: int
    skip: int
    blocks: int
    packing: str
    layout_version: int
    fingerprint: str
    replica: str
    node: str
    shards: tuple[Shard, ...]

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)


@dataclass(frozen=True, slots=True)
class KVFormat:
    """What KV must have in common for one engine to use what another made."""

    packing: str
    layout_version: int
    fingerprint: str
    ranks: int

    def check(self, reference: KVReference) -> None:
        """Raises KVMismatch, naming what differs."""
        for name in ("packing", "layout_version", "fingerprint"):
            mine, theirs = getattr(self, name), getattr(reference, name)
            if mine != theirs:
                raise KVMismatch(f"KV {reference.id}: its {name} is {theirs!r}, this engine's is {mine!r}")
        if len(reference.shards) != self.ranks:
            raise KVMismatch(f"KV {reference.id} has {len(reference.shards)} shards, this engine {self.ranks} ranks")


@cache
def fingerprint(model: Path) -> str:
    """Tells checkpoints apart: their configuration, vocabulary, and samples of their weights."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(model.iterdir()):
        if path.suffix not in (".json", ".safetensors"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for at in {0, max(0, size // 2), max(0, size - _SAMPLE)}:
                file.seek(at)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


_SAMPLE = 2**18
