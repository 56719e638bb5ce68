"""CPUs that have no instructions for bfloat16 are told apart by their flags."""

import re
from pathlib import Path

import pytest
import torch

from multiverse.config import AppConfig
from multiverse.models.precision import chosen, slow_on_this_cpu, warn_if_slow


def test_float32_is_never_slow(caplog: pytest.LogCaptureFixture) -> None:
    assert not slow_on_this_cpu("float32")
    warn_if_slow("float32")
    assert not caplog.records


def test_bfloat16_is_slow_exactly_where_the_cpu_has_no_avx512(caplog: pytest.LogCaptureFixture) -> None:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if flags is None:
        pytest.skip("the kernel lists no flags here")
    has_instructions = {"avx512bw", "avx512vl", "avx512dq"} <= set(flags[1].split())
    assert slow_on_this_cpu("bfloat16") is not has_instructions
    warn_if_slow("bfloat16")
    assert ("set `dtype: float32`" in caplog.text) is not has_instructions


def test_auto_is_what_the_machine_is_fast_in() -> None:
    fast = "float32" if slow_on_this_cpu("bfloat16") and not torch.cuda.is_available() else "bfloat16"
    assert (chosen("auto"), chosen("float16")) == (fast, "float16")
    assert AppConfig(model="builtin:smollm2-135m").engine.dtype == "auto"
