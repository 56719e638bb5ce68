"""From an `EngineConfig` to a running stock vLLM (``AsyncLLM``): with plugin and connector, or as it is."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vllm.config import KVTransferConfig, StructuredOutputsConfig, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.v1.engine.async_llm import AsyncLLM

from multiverse.engine import plugin
from multiverse.engine.arena import Arena
from multiverse.engine.config import EngineConfig
from multiverse.models.precision import warn_if_slow

# The V1 runner and synchronous scheduling are what was tested: with them a finished request's KV count is exact.
os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")


def start_vllm(config: EngineConfig, stat_logger: Any, arena: Arena) -> AsyncLLM:
    """Start vLLM's engine processes. Raises ValueError for settings a join cannot be lossless with."""
    plugin.register()
    with _environment(config):
        vllm_config = engine_args(config, arena).create_engine_config()
        refuse_unsupported(vllm_config)
        return AsyncLLM.from_vllm_config(vllm_config, stat_loggers=[stat_logger], enable_log_requests=False)


def start_plain_vllm(config: EngineConfig) -> AsyncLLM:
    """The same for plain text: every token sees all before it, and nothing is leased. Answers as JSON are compact."""
    arguments = _arguments(config) | {
        # Small models, allowed white space between values, write nothing else any more.
        "structured_outputs_config": StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
    }
    with _environment(config):
        vllm_config = AsyncEngineArgs(**(arguments | config.vllm)).create_engine_config()
        return AsyncLLM.from_vllm_config(vllm_config, enable_log_requests=False, disable_log_stats=True)


@contextmanager
def _environment(config: EngineConfig) -> Iterator[None]:
    """What vLLM's processes find in their environment. Making its configuration decides which OpenMP is preloaded."""
    ours: dict[str, str] = {}
    if current_platform.is_cpu():
        warn_if_slow(config.dtype)
        ours |= _intel_openmp()
    if config.threads is not None:
        bind = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        ours |= {"OMP_NUM_THREADS": str(config.threads), "VLLM_CPU_OMP_THREADS_BIND": bind}
    before = {name: os.environ.get(name) for name in ours}
    os.environ |= ours
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _intel_openmp() -> dict[str, str]:
    """Variables that have vLLM's CPU processes use Intel's OpenMP, which comes with its build for CPU.

    Measured on 2 cores, compiled, ms per step at batch 1, 4, 8: GNU's, which vLLM preloads otherwise, 24.6, 23.6, 28.0;
    with tcmalloc 18.6, 20.6, 24.8; Intel's 16.9, 16.2, 22.7; with tcmalloc 17.0, 17.5, 23.8.

    Its threads spin for 5 ms behind a step, as vLLM has it where it binds them to cores: what brings the tokens to
    their reader needs the cores then. With 1 ms, two threads bound to no core took twice as long for a token.
    """
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    if "LD_PRELOAD" in os.environ or not library.exists():
        return {}
    return {"LD_PRELOAD": str(library), "KMP_BLOCKTIME": os.environ.get("KMP_BLOCKTIME", "5")}


def engine_args(config: EngineConfig, arena: Arena | None = None) -> AsyncEngineArgs:
    arguments = _arguments(config) | {
        "scheduling_policy": "priority",
        "hf_overrides": plugin.overrides(_shape(config)),
        "kv_transfer_config": KVTransferConfig(
            kv_connector="MultiverseConnector",
            kv_connector_module_path="multiverse.engine.connector",
            kv_role="kv_both",
            kv_load_failure_policy="fail",
            kv_connector_extra_config={
                "spill_gib": config.spill_gib,
                "lease_seconds": config.lease_seconds,
                "arena_paths": list(arena.paths) if arena is not None else [],
                "arena_size": arena.size if arena is not None else 0,
            },
        ),
    }
    return AsyncEngineArgs(**(arguments | config.vllm))


def _arguments(config: EngineConfig) -> dict[str, Any]:
    """vLLM's engine arguments but for what concerns blocks."""
    on_cpu = current_platform.is_cpu()
    return {
        "model": str(config.model),
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "block_size": config.block_size or (128 if on_cpu else 16),
        "kv_cache_memory_bytes": config.kv_cache_bytes,
        "num_gpu_blocks_override": config.kv_cache_blocks,
        "max_num_seqs": config.max_num_seqs,
        **_prefill(config, on_cpu, _shape(config).max_position_embeddings),
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel_size,
        "seed": config.seed,
        "enable_prefix_caching": True,
        "async_scheduling": False,
        "distributed_executor_backend": _executor(config) if on_cpu else None,
        "logits_processors": ["multiverse.engine.masks:SegmentRules", *config.logits_processors],
    }


def _executor(config: EngineConfig) -> str:
    """Which of vLLM's executors computes on a CPU.

    In a process of its own a worker's threads are bound to cores. Scheduler and worker wait for each other there with
    ``sched_yield`` and no sleep, which on Linux (6.18) lets nothing else run on that core for up to seconds. So an
    engine that was given a number of threads, and thus shares its cores, is one process. Measured on 2 cores with two
    engines of one thread each: 35 ms for a token, not 43, and another process waits for a core 0.6 s at most, not 1.9.
    One engine alone, two threads: 29 ms for a token, not 33, and 31 either way in a batch of four. One
    thread and a core to spare: 35, not 34, and 36, not 33, since scheduling no longer has a core of its own.
    """
    shares = config.threads is not None and config.tensor_parallel_size == 1
    # By its class: vLLM takes the name "uni" for "mp" on a CPU.
    return "vllm.v1.executor.uniproc_executor.UniProcExecutor" if shares else "mp"


def _shape(config: EngineConfig) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(config.model)


def _prefill(config: EngineConfig, on_cpu: bool, positions: int) -> dict[str, Any]:
    """How many tokens a step computes, and whether a prompt may be spread over several.

    On a CPU it may not: vLLM then rewinds a seeded request's generator by an offset that only CUDA's generators have,
    and its engine dies. Any prompt has to fit beside the rows that decode.
    """
    if not on_cpu:
        return {"max_num_batched_tokens": config.max_num_batched_tokens}
    longest = config.max_model_len or positions
    return {
        "max_num_batched_tokens": max(config.max_num_batched_tokens, longest + config.max_num_seqs),
        "enable_chunked_prefill": False,
    }


def refuse_unsupported(config: VllmConfig) -> None:
    """Raise ValueError with the reason where KV cannot be leased, moved or merged without loss."""
    model, cache, parallel = config.model_config, config.cache_config, config.parallel_config
    reasons = {
        "speculative decoding": config.speculative_config is not None,
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "sliding-window attention": bool(getattr(model, "get_sliding_window", lambda: None)()),
        "a hybrid (attention and state-space) model": bool(getattr(model, "is_hybrid", False)),
        "multi-head latent attention (MLA)": bool(model.use_mla),
        f"a quantized KV cache ({cache.cache_dtype})": cache.cache_dtype not in ("auto", "bfloat16", "float16"),
        "a disabled prefix cache": not cache.enable_prefix_caching,
        "asynchronous scheduling": bool(config.scheduler_config.async_scheduling),
        "FCFS scheduling": config.scheduler_config.policy != "priority",
    }
    for reason, found in reasons.items():
        if found:
            raise ValueError(f"the engine does not work with {reason}; change the vLLM arguments")
