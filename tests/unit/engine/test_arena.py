"""The memory through which KV leaves an engine."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multiverse.engine.arena import Allocator, Arena, Peers, checksum, describe, part
from multiverse.engine.exports import Exports
from multiverse.engine.references import KVFormat, KVMismatch, KVReference, Shard, fingerprint
from multiverse.engine.segment import Export
from multiverse.engine.transfer import ExportCopy, Stored


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(ranks=1, size=10_000)
    yield arena
    arena.close()


def written(arena: Arena) -> KVReference:
    """1,000 bytes at offset 64, and what a peer is told of them."""
    (path,) = arena.paths
    memory = part(path, 64, 1000)
    memory.copy_(torch.arange(1000) % 251)
    shard = Shard(path, 64, 1000, checksum(memory))
    return KVReference("kv", 5, 9, 1, 2, "packing", 1, "model", "replica", "node", (shard,))


def test_parts_fill_gaps_first_and_are_refused_where_none_is_long_enough() -> None:
    allocator = Allocator(100)
    assert [allocator.allocate(id, 40) for id in "abc"] == [0, 40, None]
    allocator.free("a")
    assert [allocator.allocate(id, size) for id, size in (("d", 30), ("e", 20), ("f", 10))] == [0, 80, 30]
    assert allocator.used == 100


def test_what_one_wrote_another_reads_through_a_path_of_its_own(arena: Arena) -> None:
    reference, peers = written(arena), Peers()
    (held,) = peers.hold(reference)
    assert held != arena.paths[0]
    assert part(held, 64, 1000).tolist() == [number % 251 for number in range(1000)]
    peers.close()


def test_bytes_held_open_outlive_their_owner() -> None:
    arena, peers = Arena(ranks=1, size=10_000), Peers()
    (held,) = peers.hold(written(arena))
    arena.close()
    assert int(part(held, 64, 1000)[250]) == 250
    peers.close()


def test_changed_bytes_are_a_mismatch(arena: Arena) -> None:
    reference = written(arena)
    part(arena.paths[0], 64, 1000)[999] += 1
    with pytest.raises(KVMismatch, match=r"KV kv has the checksum 0x"):
        Peers().hold(reference)


def test_an_owner_that_is_gone_is_a_mismatch() -> None:
    arena = Arena(ranks=1, size=10_000)
    reference = written(arena)
    arena.close()
    with pytest.raises(KVMismatch, match="KV kv cannot be read"):
        Peers().hold(reference)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"packing": "other"}, "its packing is 'other', this engine's is 'packing'"),
        ({"layout_version": 2}, "its layout_version is 2, this engine's is 1"),
        ({"fingerprint": "other"}, "its fingerprint is 'other', this engine's is 'model'"),
        ({"shards": ()}, "has 0 shards, this engine 1 ranks"),
    ],
)
def test_kv_of_another_form_is_a_mismatch(arena: Arena, changed: dict[str, object], message: str) -> None:
    mine = KVFormat("packing", 1, "model", 1)
    reference = written(arena)
    mine.check(reference)
    with pytest.raises(KVMismatch, match=message):
        mine.check(replace(reference, **changed))  # type: ignore[arg-type]


def test_the_header_says_what_the_worker_described(arena: Arena) -> None:
    describe(arena.paths[0], packing="rows", block_bytes=4096)
    assert arena.header() == {"packing": "rows", "block_bytes": 4096}


def test_an_export_takes_whole_blocks_from_its_first_token_on() -> None:
    exports = Exports(Allocator(1000), block_bytes=100, block_size=4)
    stored = Stored("lease", (7, 8, 9, 3), None)
    assert exports.write(Export("x", "lease", 6), stored, 14) == (ExportCopy(stored, 1, 3, 0), (0, 3, 2, 14))
    assert exports.arena.used == 300


def test_an_export_without_room_is_counted_and_released_ones_make_room() -> None:
    exports = Exports(Allocator(250), block_bytes=100, block_size=4)
    stored = Stored("lease", (7, 8), None)
    assert exports.write(Export("x", "lease", 0), stored, 8) is not None
    assert exports.write(Export("y", "lease", 0), stored, 1) is None
    assert (exports.full, exports.held) == (1, 1)
    exports.release(["x", "never"])
    assert exports.write(Export("y", "lease", 0), stored, 1) is not None


def test_old_exports_are_freed_and_counted() -> None:
    now = 0.0
    exports = Exports(Allocator(250), block_bytes=100, block_size=4, clock=lambda: now)
    exports.write(Export("x", "lease", 0), Stored("lease", (7,), None), 4)
    now = 9.0
    assert exports.expire(10) == 0
    now = 11.0
    assert (exports.expire(10), exports.held, exports.arena.used) == (1, 0, 0)


def test_fingerprint_tells_checkpoints_apart(tmp_path: Path) -> None:
    found = []
    for name, weights in (("a", b"1" * 10), ("b", b"1" * 10), ("c", b"2" * 10)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(weights)
        found.append(fingerprint(folder))
    assert found[0] == found[1] != found[2]
