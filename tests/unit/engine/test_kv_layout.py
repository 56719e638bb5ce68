"""Copies of token ranges against plain Python. A token's KV here is one number per layer, head and element."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.engine import kv_layout
from multiverse.engine.kv_layout import KVCaches, Run, runs

LAYERS, BLOCKS, HEADS, SIZE, HEAD_DIM = 2, 6, 2, 4, 3
CELLS = SIZE * HEAD_DIM
ROWS = torch.arange(CELLS).view(SIZE, HEAD_DIM)
TRANSPOSED = torch.arange(CELLS).view(HEAD_DIM, SIZE).T
SCATTERED = (torch.arange(CELLS) * 5 % CELLS).view(SIZE, HEAD_DIM)
ORDERS = {"rows": ROWS, "transposed": TRANSPOSED, "scattered": SCATTERED}
Packing = tuple[torch.Tensor, torch.Tensor]
Tokens = list[tuple[float, ...]]


def tensors(stacked: bool) -> list[torch.Tensor]:
    """Per layer ``[num_blocks, kv_heads, block_size, 2 * head_dim]``, every element another number."""
    shape = (BLOCKS, HEADS, SIZE, 2 * HEAD_DIM)
    # As behind other tensors of the same allocation.
    whole = torch.arange(-7, LAYERS * BLOCKS * HEADS * CELLS * 2, dtype=torch.float32)[7:].view(LAYERS, *shape)
    return list(whole) if stacked else [layer.clone() for layer in whole]


def read(caches: list[torch.Tensor], packing: Packing, block: int, token: int) -> tuple[float, ...]:
    """All numbers of one token, element by element."""
    values = []
    for cache in caches:
        for head in range(HEADS):
            halves = cache[block, head].flatten().tolist()
            for half, order in enumerate(packing):
                values += [halves[half * CELLS + int(order[token, element])] for element in range(HEAD_DIM)]
    return tuple(values)


def everything(caches: list[torch.Tensor], packing: Packing) -> Tokens:
    return [read(caches, packing, block, token) for block in range(BLOCKS) for token in range(SIZE)]


def places(blocks: list[int], start: int, length: int) -> list[int]:
    return [blocks[token // SIZE] * SIZE + token % SIZE for token in range(start, start + length)]


@pytest.fixture(
    params=[("rows", "rows"), ("transposed", "rows"), ("scattered", "scattered"), ("transposed", "scattered")]
)
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Packing:
    """How the two halves of a block are packed, in place of what the probe finds."""
    keys, values = (ORDERS[name] for name in request.param)
    monkeypatch.setattr(kv_layout, "_probe", lambda dtype, size, head_dim: (keys, values))
    return keys, values


RANGES = [
    pytest.param(0, 0, 4, id="a whole block"),
    pytest.param(0, 0, 5, id="one token past the border"),
    pytest.param(1, 0, 4, id="source crosses the border by one"),
    pytest.param(0, 1, 4, id="target crosses the border by one"),
    pytest.param(3, 2, 6, id="both cross at other places"),
    pytest.param(3, 0, 1, id="the last token of a block"),
    pytest.param(2, 3, 0, id="nothing"),
]


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize(("source_start", "target_start", "length"), RANGES)
def test_copy_moves_these_tokens_and_no_others(
    packing: Packing, stacked: bool, source_start: int, target_start: int, length: int
) -> None:
    caches = tensors(stacked)
    expected = everything(caches, packing)
    moved = [expected[place] for place in places([4, 1, 0], source_start, length)]
    for place, values in zip(places([5, 2, 3], target_start, length), moved, strict=True):
        expected[place] = values
    cache = KVCaches.of(caches)
    cache.copy([4, 1, 0], source_start, cache, [5, 2, 3], target_start, length)
    assert everything(caches, packing) == expected


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize(("source_start", "target_start", "length"), RANGES)
def test_copy_brings_back_what_was_taken_to_host_memory(
    packing: Packing, stacked: bool, source_start: int, target_start: int, length: int
) -> None:
    caches = tensors(stacked)
    expected = everything(caches, packing)
    taken = [expected[place] for place in places([4, 1, 0], 0, source_start + length)]
    host = KVCaches.of(caches).take([4, 1, 0])
    for cache in caches:
        cache[[4, 1, 0]] = -1.0
    after = everything(caches, packing)
    for place, values in zip(places([5, 2, 3], target_start, length), taken[source_start:], strict=True):
        after[place] = values
    host.copy(range(3), source_start, KVCaches.of(caches), [5, 2, 3], target_start, length)
    assert everything(caches, packing) == after


BLOCK_BYTES = LAYERS * HEADS * CELLS * 2 * 4


@pytest.mark.parametrize("stacked", [True, False])
def test_a_blocks_bytes_are_all_layers_keys_and_values(packing: Packing, stacked: bool) -> None:
    assert KVCaches.of(tensors(stacked)).block_bytes == BLOCK_BYTES


@pytest.mark.parametrize("stacked", [True, False])
def test_blocks_taken_to_given_memory_are_read_there_by_another_cache(packing: Packing, stacked: bool) -> None:
    memory = torch.zeros(2 * BLOCK_BYTES, dtype=torch.uint8)
    source = tensors(True)
    KVCaches.of(source).take([4, 1], memory)
    caches = [torch.zeros_like(cache) for cache in tensors(stacked)]
    cache = KVCaches.of(caches)
    cache.host(2, memory).copy(range(2), 1, cache, [3, 2], 0, 6)
    found, expected = everything(caches, packing), everything(source, packing)
    assert [found[place] for place in places([3, 2], 0, 6)] == [expected[place] for place in places([4, 1], 1, 6)]


def test_packing_tells_caches_apart_that_cannot_read_each_others_blocks(packing: Packing) -> None:
    mine = KVCaches.of(tensors(True))
    assert mine.packing == KVCaches.of(tensors(False)).packing
    assert mine.packing.startswith("2 layers, 2 heads, 4 tokens, 3 wide, float32, ")
    assert mine.packing != KVCaches.of([cache.bfloat16() for cache in tensors(True)]).packing
    assert mine.packing != KVCaches.of(tensors(True)[:1]).packing
    assert mine.packing != KVCaches(mine._groups, (TRANSPOSED, TRANSPOSED)).packing


@pytest.mark.parametrize(
    "caches",
    [
        [torch.zeros(6, 4, 6)],
        [torch.zeros(6, 2, 4, 6), torch.zeros(6, 1, 4, 6)],
        [torch.zeros(6, 2, 4, 6), torch.zeros(6, 2, 4, 6, dtype=torch.bfloat16)],
    ],
    ids=["not four dimensions", "two shapes", "two dtypes"],
)
def test_caches_of_another_form_are_refused(caches: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"^KV cache tensors of shape \(6, .*\) are not supported: expected one shape"):
        KVCaches.of(caches)


def test_runs_cross_no_border_on_either_side() -> None:
    assert list(runs([7, 8], 3, [5, 6], 2, 5, size=4)) == [
        Run(7, 3, 5, 2, 1),
        Run(8, 0, 5, 3, 1),
        Run(8, 1, 6, 0, 3),
    ]


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 40), st.integers(1, 9))
def test_runs_are_the_copy_token_by_token(source_start: int, target_start: int, length: int, size: int) -> None:
    source, target = list(range(100, 161)), list(range(200, 261))
    found = [
        (run.source, run.source_offset + token, run.target, run.target_offset + token)
        for run in runs(source, source_start, target, target_start, length, size)
        for token in range(run.length)
    ]
    assert found == [
        (source[a // size], a % size, target[b // size], b % size)
        for a, b in zip(
            range(source_start, source_start + length), range(target_start, target_start + length), strict=True
        )
    ]
