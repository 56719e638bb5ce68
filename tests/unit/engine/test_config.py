from pathlib import Path

import pytest

from multiverse.engine.config import EngineConfig

MODEL = Path("model")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kv_cache_bytes": 0}, "kv_cache_bytes is 0: must be at least 1"),
        ({"max_num_seqs": 0}, "max_num_seqs is 0: must be at least 1"),
        ({"max_num_batched_tokens": -5}, "max_num_batched_tokens is -5: must be at least 1"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size is 0: must be at least 1"),
        ({"kv_cache_blocks": 1}, "kv_cache_blocks is 1: must be at least 2"),
        ({"spill_gib": -0.5}, "spill_gib is -0.5: must not be negative"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name_and_value(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:
        EngineConfig(MODEL, **settings)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_the_smallest_settings_are_accepted() -> None:
    config = EngineConfig(
        MODEL, kv_cache_bytes=1, kv_cache_blocks=2, max_num_seqs=1, max_num_batched_tokens=1, spill_gib=0
    )
    assert (config.kv_cache_blocks, config.spill_gib) == (2, 0)
