"""The supported vLLM models with layout positions (see ``plugin.py``). Imported by vLLM only."""

from functools import cached_property
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from multiverse.models.manifest import Manifest
from multiverse.structure.layout import layout
from multiverse.structure.tags import Vocabulary


class LayoutPositions(SupportsMRoPE):
    """Positions from the layout of the prompt's token ids; decoding goes on one by one from there."""

    vllm_config: VllmConfig

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Manifest.load(self._checkpoint).vocabulary()

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[torch.Tensor, int]:
        """[3, num_tokens] int64 positions, all rows equal; and decoded tokens' positions minus their indices."""
        placed = layout(self._vocabulary.kinds(input_tokens))
        rows = torch.from_numpy(placed.positions.astype("int64")).expand(3, -1).contiguous()
        return rows, placed.next_position - len(input_tokens)


def _with_layout(base: type) -> type:
    def __init__(self: Any, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        base.__init__(self, vllm_config=vllm_config, prefix=prefix)  # type: ignore[misc]
        self._checkpoint = vllm_config.model_config.model

    def forward(
        self: Any, input_ids: Any, positions: torch.Tensor, intermediate_tensors: Any = None, inputs_embeds: Any = None
    ) -> Any:
        rows = positions[0] if positions.ndim == 2 else positions
        return base.forward(self, input_ids, rows, intermediate_tensors, inputs_embeds)  # type: ignore[attr-defined]

    name = f"Multiverse{base.__name__}"
    return type(name, (base, LayoutPositions), {"__init__": __init__, "forward": forward, "__module__": __name__})


MultiverseLlamaForCausalLM = _with_layout(LlamaForCausalLM)
MultiverseQwen2ForCausalLM = _with_layout(Qwen2ForCausalLM)
MultiverseQwen3ForCausalLM = _with_layout(Qwen3ForCausalLM)
