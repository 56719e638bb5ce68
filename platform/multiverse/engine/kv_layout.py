"""Where one token's KV lies in vLLM's cache tensors, and copies between them and host memory.

vLLM's per-layer cache is logically ``[num_blocks, kv_heads, block_size, 2 * head_dim]``. On GPU that is also how it is
read. The CPU backend lays one block of one head out as two halves:

    | K half: block_size * head_dim, packed per instruction set | V half: [block_size, head_dim] (or packed) |

with "vec" K is transposed, ``[head_dim, block_size]``; AMX packs both halves otherwise. Which it is, is not assumed but
*probed* with vLLM's own write operation when the engine starts.
"""

import hashlib
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


class KVCaches:
    """Blocks with the KV of all layers: a worker's own cache, or host memory that is packed like it.

    groups: views ``[layers, blocks, kv_heads, block_size, 2 * head_dim]``, all layers together. orders: the packing of
    the K and V half of a block, offsets ``[block_size, head_dim]`` int64; None: rows of a token's K and V.
    """

    def __init__(self, groups: Sequence[torch.Tensor], orders: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        self._groups = tuple(groups)
        self._orders = orders
        self._planes = tuple(plane for group in groups for plane in _planes(group, orders))
        self.blocks: int = groups[0].shape[1]
        self.block_size: int = groups[0].shape[3]

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
        _, _, size, fused = first.shape
        on_cpu = first.device.type == "cpu"
        return cls(_stack(caches), _probe(first.dtype, size, fused // 2) if on_cpu else None)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, all layers."""
        return sum(group[:, 0].numel() * group.element_size() for group in self._groups)

    @property
    def packing(self) -> str:
        """What two caches must have in common for one to read the other's blocks."""
        layers = sum(len(group) for group in self._groups)
        _, _, heads, size, fused = self._groups[0].shape
        digest = "rows"
        if self._orders is not None:
            orders = b"".join(order.numpy().tobytes() for order in self._orders)
            digest = hashlib.blake2b(orders, digest_size=8).hexdigest()
        dtype = str(self._groups[0].dtype).removeprefix("torch.")
        return f"{layers} layers, {heads} heads, {size} tokens, {fused // 2} wide, {dtype}, {digest}"

    def host(self, blocks: int, memory: torch.Tensor | None = None) -> "KVCaches":
        """Host memory for ``blocks`` blocks, one behind the other per layer. memory: [blocks * block_bytes] uint8."""
        layers = [len(group) for group in self._groups]
        shape = (sum(layers), blocks, *self._groups[0].shape[2:])
        dtype = self._groups[0].dtype
        whole = torch.empty(shape, dtype=dtype) if memory is None else memory.view(dtype).view(shape)
        return KVCaches(whole.split(layers), self._orders)

    def take(self, blocks: Sequence[int], memory: torch.Tensor | None = None) -> "KVCaches":
        """These blocks, whole, copied to host memory (see `host`)."""
        taken = self.host(len(blocks), memory)
        for source, target in zip(self._groups, taken._groups, strict=True):
            for place, block in enumerate(blocks):
                target[:, place].copy_(source[:, block])
        return taken

    def copy(
        self,
        blocks: Sequence[int],
        start: int,
        target: "KVCaches",
        target_blocks: Sequence[int],
        target_start: int,
        length: int,
    ) -> None:
        """Copy ``length`` tokens of a block list into another, whole blocks as blocks. Ranges must not overlap.

        ``start`` and ``target_start`` count tokens from the beginning of either list.
        """
        for run in runs(blocks, start, target_blocks, target_start, length, self.block_size):
            if run.length == self.block_size:
                for source, into in zip(self._groups, target._groups, strict=True):
                    into[:, run.target].copy_(source[:, run.source])
                continue
            for plane, into_plane in zip(self._planes, target._planes, strict=True):
                values = plane.read(run.source, run.source_offset, run.length)
                into_plane.write(run.target, run.target_offset, run.length, values)


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


def _planes(group: torch.Tensor, orders: tuple[torch.Tensor, torch.Tensor] | None) -> list[Plane]:
    layers, blocks, heads, size, fused = group.shape
    if orders is None:
        return [Plane(group, axis=3)]
    halves = group.view(layers, blocks, heads, 2, size * fused // 2)
    return [_plane(halves[:, :, :, half], order, size, fused // 2) for half, order in enumerate(orders)]


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
