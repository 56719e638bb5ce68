"""LoRA adapters in peft's files: written from training, and merged into the base without peft.

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
from safetensors.torch import save_file

ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_ROWS = ".token_adapter.trainable_tokens_delta"
_UNSUPPORTED = ("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern")


class AdapterError(ValueError):
    """The adapter is of a kind that is not merged here, or does not fit the base."""


def write_adapter(weights: Mapping[str, torch.Tensor], config: Any, base: Path, target: Path) -> None:
    """Write an adapter that peft can load.

    weights: trainable parameters by their names in the peft model, as `full_weights` or `SavedWeights` give them.
    config: the model's peft.LoraConfig. base: the prepared checkpoint it was trained on; its name goes into the
    config, and a copy of the tag rows is in the weights.
    """
    tensors, name = {}, f".{_adapter_name(weights)}"
    tied_head = f"{_PREFIX}lm_head{_ROWS}{name}"
    for key in weights:
        # Tied to the embedding's, which is there too; peft leaves it out as well.
        if key != tied_head or not _tied(base):
            tensors[key.replace(f"{name}.weight", ".weight").removesuffix(name)] = weights[key].contiguous()
    target.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(target)
    path = target / CONFIG
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields |= {"base_model_name_or_path": base.name, "inference_mode": True, "task_type": "CAUSAL_LM"}
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(tensors, target / ADAPTER, metadata={"format": "pt"})
    (target / ADAPTER).chmod(0o644)


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
            self._tensors = {name.removeprefix(_PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kinds = (".lora_A.weight", ".lora_B.weight", _ROWS)
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
        if f"{module}{_ROWS}" in parts:
            weight[self._indices(module)] = self._tensors[f"{module}{_ROWS}"].float()
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


def _adapter_name(weights: Mapping[str, torch.Tensor]) -> str:
    for key in weights:
        if ".lora_A." in key:
            return key.split(".lora_A.")[1].removesuffix(".weight")
    raise AdapterError("there are no LoRA weights among the parameters")


def _tied(base: Path) -> bool:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("tie_word_embeddings", False))
