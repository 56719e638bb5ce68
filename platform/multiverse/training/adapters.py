"""LoRA adapters in peft's files, written from training (`multiverse.models.adapters` has their form)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from multiverse.models.adapters import ADAPTER, CONFIG, PREFIX, ROWS, AdapterError
from multiverse.models.checkpoint import EMBEDDING
from multiverse.models.weights import BaseWeights


def write_adapter(weights: Mapping[str, torch.Tensor], config: Any, base: Path, target: Path) -> None:
    """Write an adapter that peft can load.

    weights: trainable parameters by their names in the peft model, as `full_weights` or `SavedWeights` give them.
    config: the model's peft.LoraConfig. base: the prepared checkpoint it was trained on; its name goes into the
    config, a copy of the tag rows is in the weights, and they are written in its dtype.
    """
    dtype = BaseWeights(base)[EMBEDDING].dtype
    tensors, name = {}, f".{_adapter_name(weights)}"
    tied_head = f"{PREFIX}lm_head{ROWS}{name}"
    for key in weights:
        # Tied to the embedding's, which is there too; peft leaves it out as well.
        if key != tied_head or not _tied(base):
            tensors[key.replace(f"{name}.weight", ".weight").removesuffix(name)] = weights[key].to(dtype).contiguous()
    target.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(target)
    path = target / CONFIG
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields |= {"base_model_name_or_path": base.name, "inference_mode": True, "task_type": "CAUSAL_LM"}
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(tensors, target / ADAPTER, metadata={"format": "pt"})
    (target / ADAPTER).chmod(0o644)


def _adapter_name(weights: Mapping[str, torch.Tensor]) -> str:
    for key in weights:
        if ".lora_A." in key:
            return key.split(".lora_A.")[1].removesuffix(".weight")
    raise AdapterError("there are no LoRA weights among the parameters")


def _tied(base: Path) -> bool:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("tie_word_embeddings", False))
