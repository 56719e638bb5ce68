"""Where one token's KV lies in vLLM's cache tensors, and copies of token ranges between them and host memory.

vLLM's per-layer cache is logically ``[num_blocks, kv_heads, block_size, 2 * head_dim]``. On GPU that is also how it is
read. The CPU backend lays one block of one head out as two halves:

    | K half: block_size * head_dim, packed per instruction set | V half: [block_size, head_dim] (or packed) |

with "vec" K is transposed, ``[head_dim, block_size]``; AMX packs both halves otherwise. Which it is, is not assumed but
*probed* with vLLM's own write operation when the engine starts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Run:
    """``length`` tokens from one block to another; offsets are token indices inside the blocks."""

    source: int
    source_offset: int
    target: int
    target_offset: int
    length: int


def runs(
    source_blocks: Sequence[int],
    source_start: int,
    target_blocks: Sequence[int],
    target_start: int,
    length: int,
    size: int,
) -> Iterator[Run]:
    """Split the copy of ``length`` tokens into runs that cross no block border on either side."""
    done = 0
    while done < length:
        source, source_offset = divmod(source_start + done, size)
        target, target_offset = divmod(target_start + done, size)
        step = min(length - done, size - source_offset, size - target_offset)
        yield Run(source_blocks[source], source_offset, target_blocks[target], target_offset, step)
        done += step


@dataclass(frozen=True, slots=True)
class Plane:
    """A view ``[layers, blocks, kv_heads, ...]`` of cache memory whose dimension ``axis`` counts the tokens of a block.

    ``order`` is None, or, where a token's values do not lie on one axis, the offsets ``[block_size, head_dim]`` of each
    token's values on the last dimension.
    """

    memory: torch.Tensor
    axis: int
    order: torch.Tensor | None = None

    def read(self, block: int, start: int, length: int) -> torch.Tensor:
        cells = self.memory[:, block]
        if self.order is None:
            return cells.narrow(self.axis - 1, start, length)
        return cells[..., self.order[start : start + length].flatten()]

    def write(self, block: int, start: int, length: int, values: torch.Tensor) -> None:
        cells = self.memory[:, block]
        if self.order is None:
            cells.narrow(self.axis - 1, start, length).copy_(values)
        else:
            cells[..., self.order[start : start + length].flatten()] = values

    def host(self, length: int) -> torch.Tensor:
        """Host memory for ``length`` tokens of this plane, with the token axis where `read` has it."""
        shape = list(self.memory[:, 0].shape)
        if self.order is None:
            shape[self.axis - 1] = length
        else:
            shape[-1] = length * self.order.shape[1]
        return torch.empty(shape, dtype=self.memory.dtype)

    def host_slice(self, host: torch.Tensor, start: int, length: int) -> torch.Tensor:
        if self.order is None:
            return host.narrow(self.axis - 1, start, length)
        width = self.order.shape[1]
        return host[..., start * width : (start + length) * width]


class KVCaches:
    """All layers' KV of one worker, addressed by block id and token."""

    def __init__(self, planes: Sequence[Plane], block_size: int) -> None:
        self._planes = tuple(planes)
        self.block_size = block_size

    @classmethod
    def of(cls, caches: Sequence[torch.Tensor]) -> "KVCaches":
        """From a worker's per-layer tensors ``[num_blocks, kv_heads, block_size, 2 * head_dim]``, all of one form.

        Raises ValueError if the tensors have another form or a packing that cannot be read back.
        """
        first = caches[0]
        if first.ndim != 4 or any(cache.shape != first.shape or cache.dtype != first.dtype for cache in caches):
            raise ValueError(
                f"KV cache tensors of shape {tuple(first.shape)} are not supported: expected one shape "
                "[num_blocks, kv_heads, block_size, 2 * head_dim] for all layers (hybrid and MLA models are not)"
            )
        groups = _stack(caches)
        if first.device.type != "cpu":
            return cls([Plane(group, axis=3) for group in groups], first.shape[2])
        return cls([plane for group in groups for plane in _cpu_planes(group)], first.shape[2])

    def copy(
        self, source: Sequence[int], source_start: int, target: Sequence[int], target_start: int, length: int
    ) -> None:
        """Copy ``length`` tokens between block lists of the cache. Ranges must not overlap."""
        for run in runs(source, source_start, target, target_start, length, self.block_size):
            for plane in self._planes:
                values = plane.read(run.source, run.source_offset, run.length)
                plane.write(run.target, run.target_offset, run.length, values)

    def gather(self, blocks: Sequence[int], length: int) -> list[torch.Tensor]:
        """The first ``length`` tokens of a block list, copied to host memory: one tensor per plane."""
        copies = [plane.host(length) for plane in self._planes]
        for start in range(0, length, self.block_size):
            step = min(self.block_size, length - start)
            for plane, copy in zip(self._planes, copies, strict=True):
                plane.host_slice(copy, start, step).copy_(plane.read(blocks[start // self.block_size], 0, step))
        return copies

    def scatter(
        self, host: Sequence[torch.Tensor], start: int, target: Sequence[int], target_start: int, length: int
    ) -> None:
        """Copy tokens ``start ... start + length`` of what `gather` gave into the cache."""
        done = 0
        while done < length:
            block, offset = divmod(target_start + done, self.block_size)
            step = min(length - done, self.block_size - offset)
            for plane, copy in zip(self._planes, host, strict=True):
                plane.write(target[block], offset, step, plane.host_slice(copy, start + done, step))
            done += step

    @property
    def bytes_per_token(self) -> int:
        cells = sum(plane.memory[:, 0].numel() * plane.memory.element_size() for plane in self._planes)
        return cells // self.block_size


def _stack(caches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """One view ``[layers, num_blocks, ...]`` where layers lie at equal distances in one allocation, else one each."""
    first = caches[0]
    offsets = [cache.data_ptr() - first.data_ptr() for cache in caches]
    same = {cache.untyped_storage().data_ptr() for cache in caches}
    step = offsets[1] if len(caches) > 1 else 0
    size = first.element_size()
    if len(same) == 1 and step > 0 and step % size == 0 and offsets == [i * step for i in range(len(caches))]:
        return [first.as_strided((len(caches), *first.shape), (step // size, *first.stride()), first.storage_offset())]
    return [cache.unsqueeze(0) for cache in caches]


def _cpu_planes(group: torch.Tensor) -> list[Plane]:
    layers, blocks, heads, size, fused = group.shape
    head_dim = fused // 2
    halves = group.view(layers, blocks, heads, 2, size * head_dim)
    return [
        _plane(halves[:, :, :, half], order, size, head_dim)
        for half, order in enumerate(_probe(group.dtype, size, head_dim))
    ]


def _plane(half: torch.Tensor, order: torch.Tensor, size: int, head_dim: int) -> Plane:
    """The fastest view that reads ``order``: token rows, transposed, or element by element."""
    flat = torch.arange(size * head_dim)
    lead = half.shape[:3]
    if torch.equal(order, flat.view(size, head_dim)):
        return Plane(half.unflatten(3, (size, head_dim)), axis=len(lead))
    if torch.equal(order, flat.view(head_dim, size).T):
        return Plane(half.unflatten(3, (head_dim, size)), axis=len(lead) + 1)
    return Plane(half, axis=len(lead), order=order)


def _probe(dtype: torch.dtype, size: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets ``[block_size, head_dim]`` int64 at which vLLM's CPU write operation puts each token's K and V values.

    Element numbers are written digit by digit, in base 128, which every cache dtype holds exactly.
    """
    from vllm._custom_ops import cpu_attn_reshape_and_cache
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    numbers = torch.arange(size * head_dim).view(size, 1, head_dim)
    found = torch.zeros(2, size * head_dim, dtype=torch.int64)
    isa = _get_attn_isa(dtype, size, head_dim)
    for digit in range(4):
        scratch = torch.zeros(1, 1, 2 * size, head_dim, dtype=dtype)
        keys, values = scratch.chunk(2, dim=2)
        written = (numbers // 128**digit % 128).to(dtype)
        cpu_attn_reshape_and_cache(written, written.clone(), keys, values, torch.arange(size), isa)
        found += scratch.view(2, size * head_dim).to(torch.int64) * 128**digit
    orders = []
    for name, half in zip(("K", "V"), found, strict=True):
        order = torch.argsort(half)
        if not torch.equal(half[order], torch.arange(size * head_dim)):
            raise ValueError(f"the {name} cache packing of vLLM's CPU backend ({isa}) is not a permutation of a block")
        orders.append(order.view(size, head_dim))
    return orders[0], orders[1]
