"""Token copies in cache tensors that vLLM's own CPU operation wrote."""

import pytest
import torch

from multiverse.engine.kv_layout import KVCaches

pytestmark = pytest.mark.slow

LAYERS, BLOCKS, HEADS, SIZE, HEAD_DIM = 2, 4, 3, 32, 64


def written(dtype: torch.dtype, tokens: torch.Tensor, slots: torch.Tensor) -> list[torch.Tensor]:
    """Cache tensors in which vLLM wrote ``tokens`` ``[layers, 2, num_tokens, kv_heads, head_dim]`` at ``slots``."""
    from vllm._custom_ops import cpu_attn_reshape_and_cache
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    caches = list(torch.zeros(LAYERS, BLOCKS, HEADS, SIZE, 2 * HEAD_DIM, dtype=dtype))
    isa = _get_attn_isa(dtype, SIZE, HEAD_DIM)
    for cache, (keys, values) in zip(caches, tokens, strict=True):
        key_half, value_half = cache.view(BLOCKS, HEADS, 2 * SIZE, HEAD_DIM).chunk(2, dim=2)
        cpu_attn_reshape_and_cache(keys, values, key_half, value_half, slots, isa)
    return caches


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture
def tokens(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(LAYERS, 2, 50, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_copied_tokens_lie_as_if_vllm_had_written_them_there(dtype: torch.dtype, tokens: torch.Tensor) -> None:
    slots = torch.arange(50)
    caches = written(dtype, tokens, slots)
    cache = KVCaches.of(caches)
    cache.copy([0, 1], 7, cache, [2, 3], 30, 33)
    # Tokens 7 to 39 again, behind token 29 of block 2.
    twice = torch.cat([tokens, tokens[:, :, 7:40]], dim=2)
    expected = written(dtype, twice, torch.cat([slots, torch.arange(2 * SIZE + 30, 2 * SIZE + 63)]))
    assert all(torch.equal(cache, wanted) for cache, wanted in zip(caches, expected, strict=True))


def test_spilled_tokens_come_back_as_if_vllm_had_written_them_there(dtype: torch.dtype, tokens: torch.Tensor) -> None:
    host = KVCaches.of(written(dtype, tokens, torch.arange(50))).take([0, 1])
    caches = written(dtype, tokens[:, :, :0], torch.arange(0))
    host.copy(range(2), 10, KVCaches.of(caches), [3, 1], 5, 40)
    slots = torch.cat([torch.arange(3 * SIZE + 5, 4 * SIZE), torch.arange(SIZE, SIZE + 13)])
    expected = written(dtype, tokens[:, :, 10:], slots)
    assert all(torch.equal(cache, wanted) for cache, wanted in zip(caches, expected, strict=True))


def test_a_block_takes_keys_and_values_of_all_layers(dtype: torch.dtype, tokens: torch.Tensor) -> None:
    caches = KVCaches.of(written(dtype, tokens, torch.arange(50)))
    assert caches.block_bytes == SIZE * LAYERS * 2 * HEADS * HEAD_DIM * dtype.itemsize
