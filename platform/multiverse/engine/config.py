"""Settings of one engine."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AFTERGLOW = 1.3
"""Seconds for which vLLM's processes go on polling behind a step, in which they take time from any other engine."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One engine over one prepared checkpoint.

    model: directory made by ``multiverse prepare``.
    max_model_len: tokens of one sequence, joined branches included; None takes the model's positions.
    block_size: tokens per KV block; None takes 128 on CPU (a multiple of 32 there) and 16 elsewhere.
    kv_cache_bytes / kv_cache_blocks: size of the KV cache; blocks win where both are given.
    lease_seconds: a lease older than this is taken for leaked and given back; a request that still needs it has its KV
        rebuilt.
    transfer_bytes: host memory per rank for KV that other engines read.
    spill_gib: host memory for leased KV that has to leave the cache.
    threads: of a CPU engine that shares its cores with others; it is one process then, bound to no core. None: a thread
        bound to each core.
    logits_processors: further vLLM logits processors, "module:Class", applied after the engine's own.
    vllm: further vLLM engine arguments; those the engine cannot work with are refused.
    """

    model: Path
    dtype: str = "bfloat16"
    max_model_len: int | None = None
    block_size: int | None = None
    kv_cache_bytes: int = 2 * 2**30
    kv_cache_blocks: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 4096
    enforce_eager: bool = False
    tensor_parallel_size: int = 1
    transfer_bytes: int = 2**30
    spill_gib: float = 2.0
    lease_seconds: float = 900.0
    seed: int = 0
    threads: int | None = None
    self_test: bool = True
    logits_processors: tuple[str, ...] = ()
    vllm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("kv_cache_bytes", "max_num_seqs", "max_num_batched_tokens", "tensor_parallel_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least 1")
        if self.kv_cache_blocks is not None and self.kv_cache_blocks < 2:
            raise ValueError(f"kv_cache_blocks is {self.kv_cache_blocks}: must be at least 2")
        if self.lease_seconds <= 0:
            raise ValueError(f"lease_seconds is {self.lease_seconds}: must be positive")
        if self.spill_gib < 0:
            raise ValueError(f"spill_gib is {self.spill_gib}: must not be negative")
