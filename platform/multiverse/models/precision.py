"""What a CPU has instructions for."""

import logging

import torch

log = logging.getLogger(__name__)


def slow_on_this_cpu(dtype: str) -> bool:
    """Whether this CPU has no instructions for ``dtype``, so that it computes in it by detours.

    bfloat16 needs AVX-512 or AMX, float16 AMX. Nothing is said of a GPU.
    """
    checks = {
        "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported,
        "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return dtype in checks and not checks[dtype]()


def chosen(dtype: str) -> str:
    """``dtype``, for "auto" what this machine computes fast in: bfloat16, or float32 on a CPU that lacks it."""
    if dtype != "auto":
        return dtype
    return "float32" if not torch.cuda.is_available() and slow_on_this_cpu("bfloat16") else "bfloat16"


def warn_if_slow(dtype: str) -> None:
    """For models that run on the CPU."""
    if slow_on_this_cpu(dtype):
        log.warning("this CPU has no instructions for %s and is slow in it: set `dtype: float32`", dtype)
