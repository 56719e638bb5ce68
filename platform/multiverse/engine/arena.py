"""Memory through which KV leaves an engine: one anonymous file per tensor-parallel rank, and who has which part of it.

The process that starts vLLM makes the files, its workers write into them, and other engines of the node read them by
their path under /proc. Nobody has to remove them: they are gone with the last process that has them open.

    file of a rank   | 4 KiB header: JSON, what the worker says of its cache | part | part | free ... |
"""

import json
import mmap
import os
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import xxhash

from multiverse.engine.references import KVMismatch, KVReference

HEADER = 4096


@dataclass(slots=True)
class Allocator:
    """First fit over ``size`` bytes. Used in vLLM's scheduler process; all ranks have their part at the same offset."""

    size: int
    _parts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def allocate(self, id: str, size: int) -> int | None:
        """The offset of ``size`` bytes behind the header, or None where no gap is as long."""
        offset = 0
        for begin, length in sorted(self._parts.values()):
            if begin - offset >= size:
                break
            offset = begin + length
        if offset + size > self.size:
            return None
        self._parts[id] = (offset, size)
        return offset

    def free(self, id: str) -> None:
        self._parts.pop(id, None)

    @property
    def used(self) -> int:
        """Bytes in use."""
        return sum(length for _, length in self._parts.values())


class Arena:
    """The files of one engine. ``size``: bytes behind the header; memory is used only where something was written."""

    def __init__(self, ranks: int, size: int) -> None:
        self.size = size
        self._files = [os.memfd_create("multiverse-kv", os.MFD_CLOEXEC) for _ in range(ranks)]
        for file in self._files:
            os.ftruncate(file, HEADER + size)

    @property
    def paths(self) -> tuple[str, ...]:
        """By rank: where other processes of this node find the files."""
        return tuple(f"/proc/{os.getpid()}/fd/{file}" for file in self._files)

    def header(self) -> dict[str, str | int]:
        """What the first rank's worker wrote: see `describe`."""
        text = os.pread(self._files[0], HEADER, 0).rstrip(b"\0")
        values: dict[str, str | int] = json.loads(text)
        return values

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []


def describe(path: str, **values: str | int) -> None:
    """Write the header of a rank's file."""
    file = os.open(path, os.O_RDWR)
    try:
        os.pwrite(file, json.dumps(values).encode().ljust(HEADER, b"\0"), 0)
    finally:
        os.close(file)


def part(path: str, offset: int, size: int) -> torch.Tensor:
    """[size] uint8, the memory itself. Raises OSError if its owner is gone."""
    return _mapped(path, *_identity(path))[HEADER + offset : HEADER + offset + size]


def _identity(path: str) -> tuple[int, int]:
    """Tells a file from a later one that has the same path, because its process has the same number."""
    status = os.stat(path)
    return status.st_ino, status.st_size


@lru_cache(maxsize=64)
def _mapped(path: str, inode: int, size: int) -> torch.Tensor:
    file = os.open(path, os.O_RDWR)
    try:
        return torch.frombuffer(mmap.mmap(file, size), dtype=torch.uint8)
    finally:
        os.close(file)


def checksum(data: torch.Tensor) -> int:
    """64-bit xxh3 of a uint8 tensor's bytes."""
    return xxhash.xxh3_64_intdigest(data.numpy())


class Peers:
    """Other engines' files, held open: a worker that reads one does not depend on whether its owner lives."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], int] = {}

    def hold(self, reference: KVReference) -> tuple[str, ...]:
        """Paths of the reference's files for this engine's workers, the bytes checked.

        Takes as long as reading the bytes once. Raises KVMismatch where they differ or are gone.
        """
        paths = []
        for shard in reference.shards:
            try:
                paths.append(self._held(shard.path))
                found = checksum(part(paths[-1], shard.offset, shard.size))
            except (OSError, ValueError) as error:
                raise KVMismatch(f"KV {reference.id} cannot be read: {error}") from error
            if found != shard.checksum:
                raise KVMismatch(f"KV {reference.id} has the checksum {found:#x}, not {shard.checksum:#x}")
        return tuple(paths)

    def _held(self, path: str) -> str:
        key = _identity(path)
        if key not in self._files:
            self._files[key] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return f"/proc/{os.getpid()}/fd/{self._files[key]}"

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
