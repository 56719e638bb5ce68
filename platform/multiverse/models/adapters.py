"""LoRA adapters in peft's files, merged into the base without peft.

adapter_model.safetensors, of a base whose tag rows were trained as ``trainable_token_indices``:
    base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight              [r, in]
    base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight              [out, r]
    base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta    [tags, hidden], whole rows in spite of
                                                                                its name, in the order of the indices
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
ROWS = ".token_adapter.trainable_tokens_delta"
_UNSUPPORTED = ("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern")


class AdapterError(ValueError):
    """The adapter is of a kind that is not merged here, or does not fit the base."""


class MergedWeights(Mapping[str, torch.Tensor]):
    """The base's parameters that an adapter changes, with the change in them, float32, one at a time.

    base: tensor by name, of the base. Raises AdapterError for adapters of other kinds than LoRA with whole rows.
    """

    def __init__(self, adapter: Path, base: Mapping[str, torch.Tensor]) -> None:
        self._base = base
        self._config: dict[str, Any] = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
        used = [field for field in _UNSUPPORTED if self._config.get(field)]
        if self._config.get("peft_type") != "LORA" or self._config.get("bias", "none") != "none" or used:
            raise AdapterError(
                f"{adapter}: only plain LoRA is merged, this one uses {', '.join(used) or 'another kind'}"
            )
        with safe_open(adapter / ADAPTER, framework="pt") as file:
            self._tensors = {name.removeprefix(PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kinds = (".lora_A.weight", ".lora_B.weight", ROWS)
        self._names: dict[str, list[str]] = {}
        for name in self._tensors:
            kind = next((kind for kind in kinds if name.endswith(kind)), None)
            weight = f"{name.removesuffix(kind or '')}.weight"
            if kind is None or weight not in base:
                raise AdapterError(f"{adapter}: {name} belongs to no parameter of the base")
            self._names.setdefault(weight, []).append(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> torch.Tensor:
        module, parts = name.removesuffix(".weight"), self._names[name]
        weight = self._base[name].float()
        if f"{module}{ROWS}" in parts:
            weight[self._indices(module)] = self._tensors[f"{module}{ROWS}"].float()
        if f"{module}.lora_A.weight" in parts:
            up, down = self._tensors[f"{module}.lora_B.weight"], self._tensors[f"{module}.lora_A.weight"]
            rank = self._config["r"]
            scale = self._config["lora_alpha"] / (math.sqrt(rank) if self._config.get("use_rslora") else rank)
            weight += scale * (up.float() @ down.float())
        return weight

    def _indices(self, module: str) -> list[int]:
        indices = self._config["trainable_token_indices"]
        if isinstance(indices, dict):
            indices = next(ids for suffix, ids in indices.items() if module.endswith(suffix))
        return list(indices)
