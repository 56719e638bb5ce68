"""vLLM plugin: architectures whose token positions are the layout's.

vLLM asks a model that implements ``SupportsMRoPE`` once per request for the positions of its prompt; ours answers
with the layout of the token ids. The three M-RoPE rows are equal, so rotary embedding is the ordinary one.

Entry point ``vllm.general_plugins``: vLLM calls `register` in every process it starts.
"""

import multiprocessing
import os
import threading
from functools import cache
from typing import Any

PREFIX = "Multiverse"
ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def register() -> None:
    """Make ``Multiverse<Architecture>`` known to vLLM for each of `ARCHITECTURES`. Idempotent."""
    from vllm import ModelRegistry

    _end_with_parent()

    known = ModelRegistry.get_supported_archs()
    for architecture in ARCHITECTURES:
        name = PREFIX + architecture
        if name not in known:
            ModelRegistry.register_model(name, f"multiverse.engine.vllm_models:{name}")


@cache
def _end_with_parent() -> None:
    """vLLM's processes do not notice when the one that started them is killed; here they end with it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def overrides(config: Any) -> dict[str, Any]:
    """``hf_overrides`` that make vLLM serve ``config`` (a transformers config) with layout positions.

    The model's own rope scaling is kept; only ``mrope_section`` is added, which is vLLM's gate for per-request
    positions. Raises ValueError for models whose KV the engine cannot move.
    """
    (architecture,) = config.architectures
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture {architecture!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
    if getattr(config, "use_sliding_window", False) or (
        getattr(config, "sliding_window", None) and architecture == "LlamaForCausalLM"
    ):
        raise ValueError("sliding-window attention is not supported: a join needs the whole KV of every branch")
    if getattr(config, "quantization_config", None):
        raise ValueError("quantized checkpoints are not tested; prepare an unquantized one")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    half = head_dim // 2
    rope = {
        "rope_type": "default",
        **(config.rope_parameters or {}),
        "mrope_section": [half - 2 * (half // 3), half // 3, half // 3],
    }
    return {"architectures": [PREFIX + architecture], "rope_parameters": rope}
